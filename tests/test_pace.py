"""Threads are woken where that was measured to be faster."""

import random

import pytest

from lrfused import _C


class Machine:
    """A machine on which the serial time and the time with threads are known."""

    def __init__(self, serial, threaded):
        self.pace, self.serial, self.threaded = _C.Pace(), serial, threaded
        self.random = random.Random(7)

    def run(self, cost, steps, threads=2):
        """Make runs; return which were made on threads, and the whole time."""
        made, whole = [], 0
        for _ in range(steps):
            run = self.pace.choose(cost, threads)
            time = int((self.threaded if run[0] else self.serial)(cost))
            self.pace.note(cost, run, time)
            made.append(run[0])
            whole += time
        return made, whole


WAKE = 60_000  # nanoseconds
COSTS = [2**k for k in range(10, 24)]


@pytest.mark.parametrize("cost", COSTS)
def test_the_better_choice_is_found(cost):
    machine = Machine(lambda c: c, lambda c: WAKE + c / 2)
    made, whole = machine.run(cost, 4000)
    better = machine.threaded(cost) < machine.serial(cost)
    assert made[-100:].count(better) >= 99
    best = 4000 * min(machine.threaded(cost), machine.serial(cost))
    worse = max(machine.threaded(cost), machine.serial(cost))
    assert whole <= best + 20 * worse  # the first eight, and the retries


@pytest.mark.parametrize("cost", [2**12, 2**22])
def test_an_interrupted_run_changes_nothing(cost):
    machine = Machine(lambda c: c, lambda c: 100 + 0.9 * c if c > 2**20 else 2 * c)
    made, _ = machine.run(cost, 100)
    before = made[-1]
    run = machine.pace.choose(cost, 2)
    machine.pace.note(cost, run, 10**9)
    made, _ = machine.run(cost, 50)
    assert made[-20:].count(before) >= 19


def test_an_interrupted_first_try_is_tried_again():
    machine = Machine(lambda c: c, lambda c: c / 2)
    made, _ = machine.run(2**14, 7)
    assert not any(made)
    run = machine.pace.choose(2**14, 2)
    assert run == (True, True)
    machine.pace.note(2**14, run, 20_000_000)
    made, _ = machine.run(2**14, 40)
    assert made[-20:].count(True) >= 18, "threads, as soon as they were measured twice"


def test_huge_work_is_never_tried_on_one_thread():
    machine = Machine(lambda c: c, lambda c: c / 2)
    made, _ = machine.run(10**9, 3000)
    assert all(made)


def test_a_run_that_was_never_noted_costs_no_retry():
    machine = Machine(lambda c: c, lambda c: c / 2)
    machine.run(2**14, 7)
    machine.pace.choose(2**14, 2)  # the eighth, whose work raised
    assert True in machine.run(2**14, 9)[0]


def test_a_machine_that_changes_is_followed():
    machine = Machine(lambda c: c, lambda c: WAKE + c / 2)
    machine.run(2**20, 200)
    machine.threaded = lambda c: 10 * c  # somebody else has the other core
    made, _ = machine.run(2**20, 100)
    assert made[-50:].count(True) <= 2
    machine.threaded = lambda c: WAKE + c / 2
    made, _ = machine.run(2**20, 6000)
    assert made[-100:].count(True) >= 99


def test_a_choice_that_is_much_worse_is_hardly_tried():
    machine = Machine(lambda c: c, lambda c: 8_000_000)
    made, whole = machine.run(2**14, 20_000)
    assert made.count(True) <= 4
    assert whole < 1.2 * 20_000 * 2**14


def test_another_number_of_threads_is_measured_anew():
    machine = Machine(lambda c: c, lambda c: 3 * c)
    machine.run(2**20, 200)
    assert machine.pace.choose(2**20, 2)[0] is False
    assert machine.pace.choose(2**20, 4)[0] is True, "large work is tried on threads first"


def test_each_size_has_a_measure_of_its_own():
    machine = Machine(lambda c: c, lambda c: WAKE + c / 2)
    for _ in range(100):
        for cost in (2**12, 2**20):
            machine.run(cost, 1)
    assert not machine.pace.choose(2**12, 2)[0]
    assert machine.pace.choose(2**20, 2)[0]


def test_any_cost_has_a_measure():
    machine = Machine(lambda c: c, lambda c: c)
    for cost in (0, 1, 2, 2**47, 2**62):
        assert len(machine.run(cost, 3)[0]) == 3
