"""What PyTorch makes of a small problem: writes optimizer_values.json for the tests beside it.

    python tests/training/make_optimizer_values.py      (NumPy and PyTorch, float64 throughout)

The start and the gradients come from NumPy's default_rng with the seeds below; the gradients do not depend on
the weights. LARS and LAMB, which PyTorch does not have, are plain loops over tensors, from their papers.
"""

import json
from pathlib import Path

import numpy as np

VALUES = Path(__file__).with_name("optimizer_values.json")

STEPS, SEED = 20, 0
SHAPES = [(4, 3), (5,), (3,), (2,)]
RATES = np.geomspace(0.1, 0.02, STEPS)

CASES = [
    ("SGD", {}),
    ("SGD", {"weight_decay": 0.1}),
    ("SGD", {"momentum": 0.9}),
    ("SGD", {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.05}),
    ("SGD", {"momentum": 0.8, "nesterov": True, "weight_decay": 0.05}),
    ("Adagrad", {}),
    ("Adagrad", {"lr_decay": 0.2, "weight_decay": 0.1}),
    *(
        (kind, options)
        for kind in ("Adam", "AdamW", "LAMB")
        for options in (
            {},
            {"weight_decay": 0.1},
            {"amsgrad": True},
            {"beta1": 0.5, "beta2": 0.9, "eps": 1e-3, "amsgrad": True, "weight_decay": 0.3},
            {"beta1": 0.0, "beta2": 0.5},
        )
    ),
    ("RMSprop", {}),
    ("RMSprop", {"alpha": 0.7, "eps": 1e-3, "weight_decay": 0.1}),
    ("RMSprop", {"momentum": 0.6}),
    ("RMSprop", {"centered": True}),
    ("RMSprop", {"centered": True, "momentum": 0.5, "alpha": 0.8, "weight_decay": 0.05}),
    ("LARS", {}),
    ("LARS", {"eta": 0.02, "weight_decay": 0.1}),
    ("LARS", {"eta": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.05}),
    ("LARS", {"eta": 0.1, "momentum": 0.8, "nesterov": True}),
]
"""Type and options, as in a config."""

NUM_EPOCHS, LEARNING_RATE = 9, 0.4
SCHEDULES = [
    ({"type": "Step", "gamma": 0.5, "step_size": 1}, "StepLR", {"gamma": 0.5, "step_size": 1}),
    ({"type": "Step", "step_size": 3}, "StepLR", {"step_size": 3}),
    ({"type": "Step", "step_size": 20}, "StepLR", {"step_size": 20}),
    ({"type": "MultiStep", "milestones": [1, 4, 5]}, "MultiStepLR", {"milestones": [1, 4, 5]}),
    (
        {"type": "MultiStep", "gamma": 0.7, "milestones": [8, 90]},
        "MultiStepLR",
        {"gamma": 0.7, "milestones": [8, 90]},
    ),
    ({"type": "Exponential", "gamma": 0.7}, "ExponentialLR", {"gamma": 0.7}),
    (
        {"type": "Warmup", "num_epochs": 4, "start_factor": 0.1},
        "LinearLR",
        {"total_iters": 4, "start_factor": 0.1},
    ),
    (
        {"type": "Warmup", "num_epochs": 20, "start_factor": 0.5},
        "LinearLR",
        {"total_iters": 20, "start_factor": 0.5},
    ),
    ({"type": "Cosine"}, "CosineAnnealingLR", {"T_max": NUM_EPOCHS}),
    (
        {"type": "Cosine", "min_factor": 0.2},
        "CosineAnnealingLR",
        {"T_max": NUM_EPOCHS, "eta_min": 0.2 * LEARNING_RATE},
    ),
]
"""A schedule as in a config, and PyTorch's scheduler with its options."""


def problem(seed=SEED):
    """Tensors to start from, and a list of their gradients for each step.

    The third tensor starts at zero and the last has no gradient: where LARS and LAMB have no ratio. Gradients
    fade, so that the largest second moment of amsgrad is not always the newest.
    """
    generator = np.random.default_rng(seed)
    start = [generator.normal(size=shape) for shape in SHAPES]
    start[2][...] = 0
    gradients = [
        [generator.normal(size=shape) * scale for shape in SHAPES] for scale in np.geomspace(3, 0.03, STEPS)
    ]
    for of_step in gradients:
        of_step[-1][...] = 0
    return start, gradients


def by_torch(kind, options, seed=SEED):
    """The weights after all steps."""
    import torch

    keywords = dict(options)
    if kind.startswith("Adam"):
        keywords["betas"] = (keywords.pop("beta1", 0.9), keywords.pop("beta2", 0.999))
        keywords.setdefault("weight_decay", 0)  # AdamW's own default is 0.01
    start, gradients = problem(seed)
    weights = [torch.nn.Parameter(torch.tensor(tensor, dtype=torch.float64)) for tensor in start]
    optimizer = getattr(torch.optim, kind)(weights, lr=1, **keywords)
    for of_step, rate in zip(gradients, RATES, strict=True):
        optimizer.param_groups[0]["lr"] = float(rate)
        for tensor, gradient in zip(weights, of_step, strict=True):
            tensor.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
    return [tensor.detach().numpy() for tensor in weights]


def lars(
    start, gradients, eta=1e-3, weight_decay=0.0, momentum=0.0, dampening=0.0, nesterov=False, rates=RATES
):
    """You et al. 2017, algorithm 1, for one tensor; momentum as in PyTorch's SGD."""
    w, velocity = start.copy(), None
    for g, rate in zip(gradients, rates, strict=True):
        w_norm, g_norm = np.linalg.norm(w), np.linalg.norm(g)
        ratio = eta * w_norm / (g_norm + weight_decay * w_norm) if w_norm and g_norm else 1
        step = ratio * (g + weight_decay * w)
        velocity = step if velocity is None else momentum * velocity + (1 - dampening) * step
        w = w - rate * (step + momentum * velocity if nesterov else velocity if momentum else step)
    return w


def lamb(start, gradients, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, amsgrad=False, rates=RATES):
    """You et al. 2019, algorithm 2, for one tensor; amsgrad as in PyTorch's Adam."""
    w, m, v, v_max = start.copy(), 0, 0, 0
    for t, (g, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        v_max = np.maximum(v_max, v)
        m_hat = m / (1 - beta1**t)
        v_hat = (v_max if amsgrad else v) / (1 - beta2**t)
        update = m_hat / (np.sqrt(v_hat) + eps) + weight_decay * w
        w_norm, update_norm = np.linalg.norm(w), np.linalg.norm(update)
        w = w - rate * (w_norm / update_norm if w_norm and update_norm else 1) * update
    return w


PLAIN = {"LARS": lars, "LAMB": lamb}


def by_plain_loop(kind, options, seed=SEED):
    start, gradients = problem(seed)
    return [
        PLAIN[kind](tensor, [of_step[number] for of_step in gradients], **options)
        for number, tensor in enumerate(start)
    ]


def oracle(kind, options, seed=SEED):
    return (by_plain_loop if kind in PLAIN else by_torch)(kind, options, seed)


def rates_by_torch(scheduler, options):
    """The learning rate of each epoch."""
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LEARNING_RATE)
    stepped = getattr(torch.optim.lr_scheduler, scheduler)(optimizer, **options)
    rates = []
    for _ in range(NUM_EPOCHS):
        rates.append(stepped.get_last_lr()[0])
        optimizer.step()
        stepped.step()
    return rates


def main():
    import torch

    values = {
        "made_by": f"make_optimizer_values.py with torch {torch.__version__}, numpy {np.__version__}",
        "weights": [
            {
                "type": kind,
                **options,
                "weights": [tensor.ravel().tolist() for tensor in oracle(kind, options)],
            }
            for kind, options in CASES
        ],
        "rates": [
            {**schedule, "rates": rates_by_torch(scheduler, options)}
            for schedule, scheduler, options in SCHEDULES
        ],
    }
    # One line per case.
    text = json.dumps(values).replace('[{"type"', '[\n{"type"').replace(', {"type"', ',\n{"type"')
    VALUES.write_text(
        text.replace('"weights": [\n', '\n"weights": [\n').replace('"rates": [\n', '\n"rates": [\n') + "\n"
    )


if __name__ == "__main__":
    main()
