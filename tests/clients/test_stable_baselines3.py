"""Stable-Baselines3's algorithms with FusedDecaySGD, and with torch.optim.SGD beside them."""

import pytest
import torch
from support import clients
from support.clients import Steps, assert_same_steps
from support.twin import assert_same_state

from lrfused import FusedDecaySGD, StepLR

sb3 = clients.package("stable_baselines3", "common.env_util")

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*You are trying to run PPO on the GPU:UserWarning"),
]

HYPER = {"momentum": 0.9, "weight_decay": 1e-3}
EXPERIENCE = {
    "PPO": {"n_steps": 32, "batch_size": 16, "n_epochs": 2},
    "A2C": {"n_steps": 8, "use_rms_prop": False},
    "DQN": {"learning_starts": 16, "train_freq": 8, "batch_size": 8, "buffer_size": 100},
}


def decay(progress_remaining):
    return 0.01 * progress_remaining


def watched(optimizer_class, steps):
    """Make a class of optimizers that keep what each step leaves."""

    class Watched(optimizer_class):
        def step(self, closure=None):
            super().step(closure)
            steps.add(self)

    return Watched


def policy_kwargs(optimizer_class, **hyper):
    return {
        "net_arch": [8],
        "optimizer_class": optimizer_class,
        "optimizer_kwargs": {**HYPER, **hyper},
    }


def make(algorithm, optimizer_class, *, rate=decay, **hyper):
    return getattr(sb3, algorithm)(
        "MlpPolicy",
        "CartPole-v1",
        learning_rate=rate,
        policy_kwargs=policy_kwargs(optimizer_class, **hyper),
        seed=0,
        device="cpu",
        **EXPERIENCE[algorithm],
    )


@pytest.mark.parametrize("algorithm", EXPERIENCE)
def test_an_algorithm_writes_the_rates_of_either(algorithm):
    mine, other = Steps(), Steps()
    make(algorithm, watched(FusedDecaySGD, mine)).learn(96)
    make(algorithm, watched(torch.optim.SGD, other), foreach=False).learn(96)
    assert_same_steps(mine, other)


@pytest.mark.parametrize(
    ("rate", "written"), [(decay, [decay(0.75), decay(0.5)]), (0.01, [0.01, 0.01])]
)
def test_each_rollout_writes_over_a_built_in_schedule(rate, written):
    steps = Steps()
    halved = StepLR(1, gamma=0.5)
    make("PPO", watched(FusedDecaySGD, steps), rate=rate, schedule=halved).learn(128)
    rates = [rates[0] for rates in steps.rates]
    assert rates[:4] == [written[0] * 0.5**step for step in range(1, 5)]
    assert rates[4:8] == [written[1] * 0.5**step for step in range(1, 5)]


@pytest.mark.parametrize("algorithm", EXPERIENCE)
def test_a_saved_model_goes_on(algorithm, tmp_path):
    models = []
    for name, optimizer_class, hyper in (
        ("ours", FusedDecaySGD, {}),
        ("torchs", torch.optim.SGD, {"foreach": False}),
    ):
        make(algorithm, optimizer_class, **hyper).learn(64).save(tmp_path / name)
    chosen = {"custom_objects": {"policy_kwargs": policy_kwargs(FusedDecaySGD)}}
    for name, options in (("ours", {}), ("torchs", {}), ("torchs", chosen)):
        model = getattr(sb3, algorithm).load(tmp_path / name, env=None, **options)
        model.set_env(sb3.common.env_util.make_vec_env("CartPole-v1", seed=0))
        model.set_random_seed(0)
        models.append(model.learn(64, reset_num_timesteps=False).policy.optimizer)
    ours, torchs, taken_over = models
    assert type(ours) is type(taken_over) is FusedDecaySGD
    assert_same_state(ours, torchs)
    assert_same_state(taken_over, torchs)


def test_the_page(printed):
    printed("stable-baselines3")
