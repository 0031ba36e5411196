#include "affinity.h"

#include <sched.h>

#include <cstdio>
#include <regex>

#include "failure.h"

namespace edgekit {
namespace {

cpu_set_t parsed(const std::string& text) {
  static const std::regex part("(\\d{1,4})(?:-(\\d{1,4}))?,?");
  static const std::regex whole("\\d{1,4}(-\\d{1,4})?(,\\d{1,4}(-\\d{1,4})?)*");
  cpu_set_t found;
  CPU_ZERO(&found);
  bool good = std::regex_match(text, whole);
  for (std::sregex_iterator one(text.begin(), text.end(), part), end; good && one != end; ++one) {
    const int first = std::stoi((*one)[1]), last = (*one)[2].matched ? std::stoi((*one)[2]) : first;
    good = first <= last && last < CPU_SETSIZE;
    for (int cpu = first; good && cpu <= last; ++cpu) CPU_SET(cpu, &found);
  }
  if (!good) throw Failure("option 'cpus' is not a list of CPUs", "'" + text + "'", "e.g. 0,4-7", kAgain);
  return found;
}

}  // namespace

void stay_on(const Option& cpus) {
  const auto* const text = std::get_if<std::string>(&cpus);
  if (text == nullptr) throw Failure("option 'cpus' is not a list of CPUs", "no text", "e.g. 0,4-7", kAgain);
  const cpu_set_t wanted = parsed(*text);
  cpu_set_t before, possible;
  CPU_ZERO(&before);
  if (sched_getaffinity(0, sizeof before, &before) != 0) CPU_ZERO(&before);
  CPU_AND(&possible, &wanted, &before);
  if (!CPU_EQUAL(&possible, &wanted)) {
    std::fprintf(stderr, "warning: the bundle is made for CPUs %s, and %d of these %d may be used\n", text->c_str(),
                 CPU_COUNT(&possible), CPU_COUNT(&wanted));
  }
  if (CPU_COUNT(&possible) != 0) sched_setaffinity(0, sizeof possible, &possible);
}

}  // namespace edgekit
