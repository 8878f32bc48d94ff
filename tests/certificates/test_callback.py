"""A function that knows certificates: asked once, at a rate, and never pushed out of its memory by strangers."""

from __future__ import annotations

import pytest
from greenlet import GreenletExit

from greentls.certificates import Callback, CertificateChain, callback
from greentls.errors import ConfigurationError, TooManyCalls
from greentls.hub import Deadline, here
from tests.support.helpers import PATIENCE
from tests.support.hubs import Job, under_each_hub, wait_for


@pytest.fixture(scope="module")
def chain(pki):
    return CertificateChain.load(pki.cert_file, pki.key_file)


@pytest.fixture
def clock(monkeypatch):
    """clock(5): five seconds later."""
    now = callback.monotonic()
    monkeypatch.setattr(callback, "monotonic", lambda: now)

    def later(seconds):
        nonlocal now
        now += seconds
        monkeypatch.setattr(callback, "monotonic", lambda: now)

    return later


class Function:
    """Counts, and waits or raises as it is told."""

    def __init__(self, answer=None):
        self.answer, self.asked, self.raises = answer, [], None
        self.inside, self.go_on = here().event(), here().event()
        self.go_on.set()

    def __call__(self, name):
        self.asked.append(name)
        self.inside.set()
        self.go_on.wait()
        if self.raises:
            raise self.raises
        return self.answer(name) if callable(self.answer) else self.answer


@under_each_hub
class TestAnswers:
    def test_a_chain_chains_or_a_pair_of_files(self, pki, chain):
        for answer, wanted in (
            (chain, (chain,)),
            ([chain, chain], (chain, chain)),
            ((chain,), (chain,)),
            ((pki.cert_file, pki.key_file), (chain,)),
            (None, None),
        ):
            assert Callback(Function(answer)).get("localhost") == wanted

    @pytest.mark.parametrize("answer", ["a string", b"bytes", 42, (), [None], (1, 2, 3), True])
    def test_another_answer_is_an_exception(self, answer):
        with pytest.raises(TypeError, match="neither None"):
            Callback(Function(answer)).get("localhost")

    def test_files_that_are_none_are_an_exception(self, pki):
        with pytest.raises(FileNotFoundError):
            Callback(Function(("/missing", "/missing"))).get("localhost")
        with pytest.raises(ConfigurationError):
            Callback(Function((pki.ca_file, pki.key_file))).get("localhost")

    def test_names_are_brought_into_one_form_before_the_function_sees_them(self, chain):
        function = Function(chain)
        source = Callback(function)
        for name in ("www.example", "WWW.Example", "www.example."):
            assert source.get(name) == (chain,)
        for name in (None, "", "*.example", "127.0.0.1", "../../etc/passwd", "a b", "\udcff", "x" * 64):
            assert source.get(name) is None
        assert function.asked == ["www.example"]


@under_each_hub
class TestFlights:
    def test_a_name_is_asked_about_once_however_many_wait(self, chain):
        function = Function(chain)
        function.go_on = here().event()
        source = Callback(function)
        jobs = [Job(source.get, "www.example") for _ in range(50)]
        function.inside.wait(PATIENCE)
        here().sleep(0)
        function.go_on.set()
        assert [job.result() for job in jobs] == [(chain,)] * 50
        assert function.asked == ["www.example"]

    def test_a_waiter_that_is_killed_leaves_the_call_to_the_others(self, chain):
        function = Function(chain)
        function.go_on = here().event()
        source = Callback(function)
        first, second = Job(source.get, "www.example"), Job(source.get, "www.example")
        function.inside.wait(PATIENCE)
        first.kill()
        function.go_on.set()
        assert second.result() == (chain,)
        assert function.asked == ["www.example"]

    def test_one_that_nobody_waits_for_any_more_is_there_for_the_next(self, chain):
        """The on-demand case: the order takes longer than the handshake may."""
        function = Function(chain)
        function.go_on = here().event()
        source = Callback(function)
        with pytest.raises(TimeoutError, match="mine"), Deadline(0.05, "mine"):
            source.get("www.example")
        function.go_on.set()
        wait_for(lambda: not source._flights, "the flights to end")
        assert source.get("www.example") == (chain,)
        assert function.asked == ["www.example"]

    def test_other_names_do_not_wait(self, chain):
        slow = here().event()

        def function(name):
            if name == "slow.example":
                slow.wait()
            return chain

        source = Callback(function)
        job = Job(source.get, "slow.example")
        here().sleep(0)
        assert source.get("quick.example") == (chain,)
        assert not job.dead
        slow.set()
        assert job.result() == (chain,)

    @pytest.mark.parametrize("failure", [ValueError("down"), SystemExit("down"), GreenletExit("down")])
    def test_what_it_raises_all_who_wait_get(self, failure, caplog):
        function = Function()
        function.raises = failure
        function.go_on = here().event()
        source = Callback(function)
        jobs = [Job(raised, source.get, "www.example") for _ in range(3)]
        function.inside.wait(PATIENCE)
        here().sleep(0)
        function.go_on.set()
        assert all(job.result() is failure for job in jobs)
        assert function.asked == ["www.example"] and source._flights == {}
        assert "www.example" in caplog.text and "down" in caplog.text

    @pytest.mark.parametrize("stubborn", [False, True])
    def test_a_call_has_a_time_limit(self, stubborn, caplog):
        """hazard: a name whose call never comes back can never be asked about again."""

        def wait(name):
            while True:
                try:
                    here().sleep(PATIENCE)
                except Exception:
                    if not stubborn:
                        raise

        source = Callback(wait, timeout=0.05)
        with pytest.raises(TimeoutError, match=r"www\.example: no answer in 0\.05 s"):
            source.get("www.example")
        assert source._flights == {}

    def test_no_greenlet_is_left(self, chain, new_greenlets):
        Callback(Function(chain)).get("www.example")
        here().sleep(0)
        assert new_greenlets() == []


@under_each_hub
class TestMemory:
    def test_an_answer_is_good_for_its_lifetime(self, chain, clock):
        function = Function(chain)
        source = Callback(function, lifetime=100)
        for later, calls in ((0, 1), (99, 1), (2, 2), (99, 2)):
            clock(later)
            assert source.get("www.example") == (chain,)
            assert len(function.asked) == calls

    def test_and_no_longer_than_its_certificate(self, pki, clock):
        short = CertificateChain.load(*pki.issue("www.example", days=1))
        function = Function(short)
        source = Callback(function, lifetime=10 * 86400)
        for later, calls in ((0, 1), (86000, 1), (500, 2)):
            clock(later)
            source.get("www.example")
            assert len(function.asked) == calls

    def test_one_that_has_ended_is_asked_about_again_soon(self, pki, clock):
        function = Function(CertificateChain.load(*pki.issue("www.example", days=-1)))
        source = Callback(function)
        for later, calls in ((0, 1), (0.5, 1), (1, 2)):
            clock(later)
            assert source.get("www.example")
            assert len(function.asked) == calls

    def test_that_there_is_none_is_remembered_for_a_shorter_time(self, clock):
        function = Function(None)
        source = Callback(function, unknown_lifetime=10)
        for later, calls in ((0, 1), (9, 1), (2, 2)):
            clock(later)
            assert source.get("www.example") is None
            assert len(function.asked) == calls

    def test_a_failure_is_remembered_for_a_moment(self, chain, clock, caplog):
        """hazard: the handshakes of one broken name use up the calls of all."""
        function = Function(chain)
        function.raises = OSError("down")
        source = Callback(function)
        with pytest.raises(OSError, match="down"):
            source.get("www.example")
        for _ in range(10):
            with pytest.raises(TooManyCalls, match="failed less than"):
                source.get("www.example")
        assert len(function.asked) == 1
        function.raises = None
        clock(1.5)
        assert source.get("www.example") == (chain,)

    def test_forget(self, chain):
        function = Function(chain)
        source = Callback(function)
        source.get("www.example")
        source.forget("WWW.example")
        source.forget("no name")
        source.get("www.example")
        assert len(function.asked) == 2


@under_each_hub
class TestStrangers:
    def test_invented_names_cost_so_many_calls_in_a_period_and_no_more(self, chain, clock, caplog):
        function = Function(lambda name: chain if name == "www.example" else None)
        source = Callback(function, calls=5, period=60, unknown_lifetime=10_000)
        assert source.get("www.example") == (chain,)
        refused = 0
        for number in range(1000):
            try:
                assert source.get(f"{number}.example") is None
            except TooManyCalls as error:
                assert error.server_name == f"{number}.example"
                refused += 1
        assert len(function.asked) == 5 and refused == 996
        assert source.get("www.example") == (chain,), "what is known costs no call"
        clock(12)  # a fifth of the period
        for number in range(2000, 3000):
            raised(source.get, f"{number}.example")
        assert len(function.asked) == 6
        clock(10_000)
        for number in range(3000, 4000):
            raised(source.get, f"{number}.example")
        assert len(function.asked) == 11, "calls that nobody made do not add up"

    def test_as_many_at_once(self, chain):
        function = Function(chain)
        function.go_on = here().event()
        source = Callback(function, calls=3, period=1e-9)
        jobs = [Job(raised, source.get, f"{number}.example") for number in range(10)]
        here().sleep(0), here().sleep(0)
        assert len(function.asked) == 3
        function.go_on.set()
        assert sorted(type(job.result()).__name__ for job in jobs) == ["NoneType"] * 3 + ["TooManyCalls"] * 7

    def test_unknown_names_push_out_no_certificate(self, chain):
        function = Function(lambda name: chain if name == "www.example" else None)
        source = Callback(function, max_names=2)
        source.get("www.example")
        for number in range(50):
            assert source.get(f"{number}.example") is None
        function.asked.clear()
        assert source.get("www.example") == (chain,) and source.get("49.example") is None
        assert function.asked == []
        assert len(source._unknown._kept) == 2

    def test_the_names_used_last_are_kept(self, chain):
        function = Function(chain)
        source = Callback(function, max_names=2)
        for name in ("a.example", "b.example", "a.example", "c.example"):
            source.get(name)
        function.asked.clear()
        for name in ("a.example", "c.example", "b.example"):
            source.get(name)
        assert function.asked == ["b.example"]


def raised(function, *arguments):
    try:
        function(*arguments)
    except BaseException as error:
        return error
    return None
