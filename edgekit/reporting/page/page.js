"use strict";
// Tables sort by a click or a key on a column's name; what has no value stays last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  [...body.rows].forEach((row, i) => { row.dataset.order = i; });
  heads.forEach((head, column) => {
    const numeric = head.dataset.numeric !== undefined;
    const compare = (a, b) => numeric ? Number(a) - Number(b) : a.localeCompare(b, undefined, { numeric: true });
    head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows].sort((a, b) => {
        const x = a.cells[column].dataset.value, y = b.cells[column].dataset.value;
        const known = (x === undefined) - (y === undefined);
        const order = known || (x === undefined ? 0 : compare(x, y) * (down ? -1 : 1));
        return order || a.dataset.order - b.dataset.order;
      });
      body.append(...rows);
    });
  });
}
// What a browser shows late and only to a pointer is shown at once, to a keyboard too.
const bubble = document.createElement("div");
bubble.className = "bubble";
bubble.setAttribute("aria-hidden", "true");
bubble.hidden = true;
document.body.append(bubble);
for (const part of document.querySelectorAll(".tip")) {
  const title = part.querySelector("title");
  if (!title) continue;
  const text = title.textContent;
  const show = () => {
    title.remove();
    bubble.replaceChildren(...text.split(" · ").map((line) => {
      const row = document.createElement("div");
      row.textContent = line;
      return row;
    }));
    bubble.hidden = false;
    const box = part.getBoundingClientRect();
    const wide = bubble.offsetWidth, high = bubble.offsetHeight, space = document.documentElement.clientWidth;
    const middle = Math.min(Math.max(box.left + box.width / 2, 0), space);
    const left = Math.min(Math.max(8, middle - wide / 2), Math.max(8, space - wide - 8));
    const top = box.top > high + 12 ? box.top - high - 8 : box.bottom + 8;
    bubble.style.left = `${left + window.scrollX}px`;
    bubble.style.top = `${top + window.scrollY}px`;
  };
  const hide = () => { bubble.hidden = true; part.prepend(title); };
  part.addEventListener("pointerenter", show);
  part.addEventListener("pointerleave", hide);
  part.addEventListener("focus", show);
  part.addEventListener("blur", hide);
}
