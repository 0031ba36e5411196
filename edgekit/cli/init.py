"""``edgekit init``: a commented recipe to start from."""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.errors import EdgeKitError

# A line that starts with "#" and no space is a key with its default (or an example where there is none).
TEMPLATE = """\
# One deployment: which model, which data, which devices, which budget.
# Lines that start with "#" and no space are settings with their defaults; take the "#" away to change one.
# Paths are relative to this file, and Python modules beside it can be imported.

#name = "my-model"                # in reports and in the manifest; default: the name of this folder
#seed = 0                         # one seed, one student
#metric = "accuracy"              # a name, or "package.module:function" of your own
#shapes = {}                      # for a torch model without data, e.g. { input = "f32[1,3,224,224]" }
targets = ["local"]               # `edgekit targets` lists them; a path to a .toml file works too
profile = "interactive"           # `edgekit profiles` lists them; a path to a .toml file works too

# The large model, or the model to deploy as it is.
[teacher]
model = "model:teacher"           # "package.module:factory", "timm:NAME" or a path to an .onnx file
#args = {}                        # keyword arguments of the factory
#weights = "teacher.safetensors"  # .safetensors, .pt (read with weights only), or "factory": those the factory gives it
#inputs = []                      # arrays of the data that it takes, where teacher and student see different ones

# How a teacher without weights is trained, or one with weights is fine-tuned. Leave it out to use it as it is.
#[teacher.train]
#epochs = 10                      # most passes over the training data
#batch_size = 64                  # samples a step
#learning_rate = 1e-3             # peak rate
#weight_decay = 0.01              # decoupled weight decay
#optimizer = "adamw"              # "adamw" or "sgd" (momentum 0.9)
#patience = 3                     # stop after so many epochs without a better validation score; default: never
#schedule = "cosine"              # of the rate after the warm-up: to zero; or "constant"
#warmup = 0.05                    # share of the steps over which the rate rises
#accumulate = 1                   # batches whose gradients make one step
#clip_norm = 1.0                  # gradients are scaled down to this norm; default: never
#ema = 0.999                      # decay of a running mean of the weights, which is kept; default: the weights
#mixed_precision = "no"           # "bf16", or "fp16" on a GPU
#trackers = []                    # "tensorboard", "mlflow", "wandb": losses and scores as training goes on
#augmentation = { flip = true, crop = 4 }  # erase, noise, mixup, cutmix, own = "module:attr", views; default: none
#adversarial = { attack = "fgsm", epsilon = 0.03 }  # or "pgd" with steps and step; share; default: none
#group_temperature = 1.0          # above 1: small groups of data.groups are drawn more often
#freeze = []                      # module paths whose parameters stay as they are
#rates = {}                       # factor of the learning rate by module path
#head = { module = "fc", classes = 10 }  # a new last layer, put on before training; default: none
#bn_sparsity = 1e-4               # factor of the BatchNorm scales' L1 norm, added to the loss; default: nothing is
#sparse = { share = 0.5 }         # weights that stay zero; or { pattern = [2, 4] }; over, scope, dense; default: none

# The small model that learns from the teacher. Leave it out to deploy the teacher itself.
#[student]
#model = "teacher"                # a copy of the teacher, cut by the next lines; or a model of its own, as above
#depth = 0.5                      # share of the blocks that is kept in each list of them, evenly spread; default: all
#keep = {}                        # or which ones, by number: { "layer1" = [0, 2] }
#width = 0.5                      # share of the channels that is kept in every layer; default: all
#embeddings = 64                  # rank that embedding tables are cut to; default: they stay
#initial = "teacher"              # the copy's weights: the teacher's, or "random"
#args = {}                        # a model of its own: keyword arguments of the factory
#weights = "student.safetensors"  # where that starts from; default: fresh
#inputs = []                      # arrays of the data that it takes; default: all, a copy the teacher's
#take = {}                        # or which weights of the teacher: { "student.path" = "teacher.path" }
#larger = false                   # whether it may have more parameters than the teacher

# How the student learns: soft targets of the teacher mixed with the labels.
#[distillation]
#temperature = 4.0                # softens both sets of logits
#soft_weight = 0.7                # share of the soft loss, 0 to 1; the rest goes to the labels
#soft = "soft_targets"            # what matches the logits: "soft_targets", "decoupled", "dist" or "module:attr"
#soft_args = {}                   # keyword arguments of that loss
#standardise = false              # both logits with mean 0 and deviation 1 first
#generations = 1                  # how often: each time but the first by what the student became the time before
#teacher_share = 1.0              # of the teacher above, where there are others
#combine = "mean"                 # how their answers become one; "confidence": the surer one counts more
#peers = []                       # models that learn beside the student and from each other: [{ model = "model:peer" }]
#peer_weight = 1.0                # factor of what they teach each other
#cache = true                     # the teacher's answers are kept on disk, where it would give the same ones again
#stages = []                      # tables of these keys, one after the other, and data = "more.npz" for one of its own
#epochs = 10                      # these and the rest: as for the teacher's training
#batch_size = 64
#learning_rate = 1e-3
#weight_decay = 0.01
#optimizer = "adamw"
#patience = 3
#schedule = "cosine"
#warmup = 0.05
#accumulate = 1
#clip_norm = 1.0
#ema = 0.999
#mixed_precision = "no"
#trackers = []
#augmentation = { flip = true, crop = 4 }
#adversarial = { attack = "fgsm", epsilon = 0.03 }
#group_temperature = 1.0
#freeze = []
#rates = {}
#head = { module = "fc", classes = 10 }
#bn_sparsity = 1e-4
#sparse = { share = 0.5 }

# What changes while the student learns: each value goes from the one above (features: from 1) to `end`, with the steps
# ("linear", "cosine") or as far as student and teacher agree ("gap").
#[distillation.schedules]
#temperature = { end = 1.0, kind = "linear" }
#soft_weight = { end = 0.5, kind = "cosine" }
#features = { end = 0.0, kind = "gap" }

# More teachers, all with weights: what they answer together is what is taught.
#[[distillation.teachers]]
#model = "model:other"
#args = {}
#weights = "other.safetensors"
#inputs = []
#share = 1.0

# Models between teacher and student, large to small: each learns from the one before.
#[[distillation.assistants]]
#model = "model:assistant"
#args = {}
#weights = "assistant.safetensors"
#inputs = []

# What is matched between layers besides; one table a pair of layers.
#[[distillation.features]]
#loss = "hints"                   # "attention_transfer", "similarity", "relational", "contrastive", "review" or
#                                # "module:attr"
#student = "layer2"               # module path in the student (several for "review": ["layer1", "layer2"])
#teacher = "layer2"
#weight = 1.0
#args = {}                        # keyword arguments of the loss

# Further tasks, which are outputs of both models beside the first; one table each.
#[[tasks]]
#output = "output_1"              # its name: a key where the model returns a mapping, else "output_1", "output_2" ...
#target = "angle"                 # the array of the data that it is to give; it is no input
#kind = "classes"                 # logits for class numbers; or "values": numbers of any shape
#weight = 1.0                     # factor of its loss; default: learnt, from how uncertain the task is
#taught = true                    # whether the teacher has this output too

# Blocks and channels are left out of the student until it meets a latency budget on the target's own engine.
#[pruning]
#budget_ms = 5.0                  # what the median may be; default: the profile's p50_ms
#ratio = 0.5                      # the same as a share of the unpruned student's; of both the smaller counts
#max_drop_points = 1.0            # against the teacher, on the samples kept for validation; default: the profile's
#target = "local"                 # where it is measured; default: the first of the targets
#engine = "openvino"              # default: the one that ships the unpruned student
#steps = 4                        # in how many steps the budget is neared
#blocks = true                    # whether whole blocks may go
#channels = true                  # whether channels may go
#multiple = 16                    # of which widths become a multiple; default: the target's
#keep = []                        # paths of layers that keep their channels
#criterion = "taylor"             # which channels go: "l1", "l2", "batchnorm", "taylor", "hessian", "activation",
#                                # "random" or "module:attr"
#importance = "loss"              # what a move costs: the rise of the loss, what the "criterion" says, or its "share"
#samples = 512                    # training samples that losses and criteria are computed on
#table = "latency_table.json"     # measured on the device by `edgekit prune --table-only`, where this host is another
#last_epochs = 20                 # of the step that meets the budget; default: as of every step

# How it learns from the teacher after each step: the keys of [distillation].
#[pruning.train]
#epochs = 10

# Samples: an .npz file, a folder or tar of images by class, or "package.module:attr" (a torch Dataset).
# Without data everything is built and measured with random inputs, and accuracy is not judged.
#[data]
#train = "train.npz"              # also the source of validation and calibration samples
#test = "test.npz"                # accuracy is judged on these; default: none, accuracy is not judged
#validation = 0.1                 # share of the training samples kept for it, or samples of their own: "val.npz"
#calibration = 300                # samples that calibrate a quantised model
#groups = "language"              # array that says which group a sample is of; default: none
#labelled = 0.1                   # share of the training samples whose labels are used; default: all
#unlabelled = "more.npz"          # more training samples, whose labels are not known or not used; default: none
#labels = ["cat", "dog"]          # class names, in order; default: those of the data, where it has them
#source = "https://example.org"   # where the samples can be had, told where they are missing; nothing is downloaded

# From a raw sample to a model tensor: resize, scale, (x - mean) / std, layout. Leave it out if samples are tensors.
#[input]
#name = "input"                   # the model input it feeds
#layout = "any"                   # axes of raw samples: "NHWC", "NCHW", "NHW" or "any" (kept as is)
#model_layout = "NCHW"            # axes the model takes: "NCHW" or "NHWC"
#scale = 1.0                      # factor of raw values, e.g. 0.00392156862745098 for bytes
#mean = [0.0]                     # per channel after scaling, or one value for all
#std = [1.0]                      # per channel after scaling, or one value for all
#resize = [224, 224]              # height and width in pixels; default: the size stays
#in_graph = false                 # true: the model that ships does it itself and takes raw samples

# From a model's output to an answer, for who runs the bundle; scores are judged without it.
#[output]
#name = "logits"                  # default: the only one
#activation = "none"              # or "softmax" or "sigmoid"
#axis = 1                         # of classes; 0 is the batch
#top = 5                          # of the best scores, with their classes and labels; default: all
#in_graph = false                 # true: the model that ships computes the activation itself

# "auto" ships the fastest precision that passes, int8 only where it pays; or name one: "fp32", "bf16", "fp16", "fp8",
# "int8", "w8", "w4".
#[quantization]
#precision = "auto"
#method = "mse"                   # how ranges of int8 are found; default: the engine's usual, or what auto finds
#corrections = ["equalize"]       # of static int8: "smooth-quant", "equalize", "bias-correction"; default: likewise
#float_nodes = []                 # names of nodes left in float
#scheme = { per_channel = true }  # fields of the engine's dialect set by hand; default: the engine's own
#trials = 16                      # most plans that auto tries on one engine

# What bundles carry for `edgekit watch`: what their calibration samples were like, and limits to keep on the device.
#[watch]
#statistics = true                # false: nothing is said of drift and saturation
#samples = 64                     # of a window of drift and saturation
#every = 8                        # values are looked at in one query of so many; of video, say one in some seconds
#period_s = 10.0                  # from one line of the watch to the next
#window_s = 300.0                 # over which latencies, failures and drops are judged

# A limit that is false is none. Latencies are the profile's where not said otherwise.
#[watch.limits]
#p50_ms = 20.0
#p90_ms = 25.0
#p95_ms = 30.0
#p99_ms = 40.0
#p999_ms = 80.0
#failed_share = 0.01
#dropped_share = 0.1              # of a stream's frames
#memory_mb = 500.0                # resident, of the process
#temperature_c = 85.0
#drift = 0.25                     # of an input; default: this, or more where the calibration samples differ by more
#output_drift = 0.25              # likewise
#saturated_share = 0.01           # values outside what calibration saw; default: this, or more where it saw few
#not_finite_share = 0.0
#restarts = 3.0                   # within window_s
#silence_s = 30.0                 # default: three periods

# Training in int8: the student goes on learning as it will compute, and is a candidate beside int8 of calibration.
# Leave it out where int8 by calibration loses little.
#[qat]
#weight_bits = 8                  # 4: weights on 16 levels, stored two a byte and computed with as int8
#method = "minmax"                # how the first ranges are found, which are then learned
#teacher = "student"              # who teaches it: the float student itself, or the recipe's "teacher"
#learning_rate = 1e-4             # a tenth of what training in float takes
#temperature = 4.0                # these and the rest: as for distillation
#soft_weight = 0.7                # without labels: 1
#soft = "soft_targets"
#soft_args = {}
#standardise = false
#cache = true
#schedules = {}
#epochs = 10
#batch_size = 64
#weight_decay = 0.01
#optimizer = "adamw"
#patience = 3
#schedule = "cosine"
#warmup = 0.05
#accumulate = 1
#clip_norm = 1.0
#ema = 0.999
#mixed_precision = "no"
#trackers = []
#augmentation = { flip = true, crop = 4 }
#adversarial = { attack = "fgsm", epsilon = 0.03 }
#group_temperature = 1.0
#freeze = []
#rates = {}
"""


@click.command()
@click.argument("folder", metavar="[DIR]", default=".", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite a recipe that is there.")
def init(folder: Path, force: bool) -> None:
    """Write a commented edgekit.toml into DIR (default: here)."""
    path = folder / "edgekit.toml"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("w" if force else "x", encoding="utf-8") as stream:
            stream.write(TEMPLATE)
    except FileExistsError as exc:
        raise EdgeKitError(f"{path} is already there", fix="use --force to overwrite it") from exc
    click.echo(f"wrote {path}\nnext: edit it, then run `edgekit deploy {path}`")
