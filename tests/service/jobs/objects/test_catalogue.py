"""Nothing that somebody refers to is removed, whatever happens at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from service.access.caller import DEFAULT_TENANT
from service.errors import ObjectStoreError
from service.jobs.objects.catalogue import CLAIM_SECONDS
from service.jobs.objects.work_files import WorkFile
from service.jobs.records import StoredFile
from tests.faults.server_process import wait_until
from tests.service.jobs.objects.conftest import Bench
from tests.service.jobs.objects.test_object_artifacts import read, stored
from tests.service.jobs.test_artifacts import DATA, DIGEST

FILE = StoredFile(DIGEST, len(DATA))


def refer_by_upload(bench: Bench) -> None:
    bench.store.owners.add(DEFAULT_TENANT, FILE)


def refer_by_finished_job(bench: Bench) -> None:
    with bench.store.engine.begin() as connection:
        bench.store.file_uses.note(connection, "job", [FILE])


def refer_by_unfinished_job(bench: Bench) -> None:
    bench.work.note("job", [WorkFile("engine.onnx", FILE)])


REFERENCES = [refer_by_upload, refer_by_finished_job, refer_by_unfinished_job]


@pytest.mark.parametrize("refer", REFERENCES)
def test_what_somebody_needs_stays_and_what_nobody_needs_goes(bench: Bench, refer: Callable[[Bench], None]) -> None:
    one = bench.process()
    stored(one)
    other = stored(one, b"needed by nobody")
    refer(bench)
    bench.clock.advance(CLAIM_SECONDS + 1)
    one.remove(DIGEST)  # a mistake: it is needed
    one.collect()
    assert read(bench.process("other")) == DATA
    assert not bench.has_object(other)
    assert one.find(other) is None


def test_what_was_just_stored_or_named_is_kept_for_a_while(bench: Bench) -> None:
    one = bench.process()
    stored(one)
    bench.clock.advance(CLAIM_SECONDS - 1)
    one.collect()
    assert one.find(DIGEST) is not None  # named
    bench.clock.advance(CLAIM_SECONDS - 1)
    one.collect()
    assert bench.has_object(DIGEST)
    bench.clock.advance(2)
    one.collect()
    assert not bench.has_object(DIGEST)


def test_a_removed_file_that_is_stored_again_is_there(bench: Bench) -> None:
    one = bench.process()
    stored(one)
    one.remove(DIGEST)
    bench.clock.advance(CLAIM_SECONDS + 1)
    assert one.find(DIGEST) is None
    stored(bench.process("other"))
    one.collect()
    assert read(bench.process("third")) == DATA


def test_a_collection_that_fails_half_way_leaves_a_file_that_can_be_stored_again(bench: Bench) -> None:
    one = bench.process()
    stored(one)
    bench.clock.advance(CLAIM_SECONDS + 1)

    def delete(sha256: str) -> None:
        bench.filesystem.rm_file(bench.path(sha256))
        raise ObjectStoreError("object store: cut", fix="")

    with pytest.raises(ObjectStoreError):
        bench.catalogue.collect(delete)
    assert one.find(DIGEST) is None
    stored(bench.process("other"))
    assert read(bench.process("third")) == DATA


def test_an_object_that_went_before_anybody_referred_to_it_is_said_so_that_it_is_stored_anew(bench: Bench) -> None:
    one = bench.process()
    stored(one)
    bench.clock.advance(CLAIM_SECONDS + 1)  # who stored it stood still meanwhile
    one.collect()
    for refer in (refer_by_finished_job, refer_by_unfinished_job):
        with pytest.raises(ObjectStoreError, match="removed meanwhile"):
            refer(bench)
    with bench.store.engine.connect() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM job_files")).scalar_one() == 0
    stored(one)
    refer_by_finished_job(bench)
    bench.clock.advance(CLAIM_SECONDS + 1)
    one.collect()
    assert bench.has_object(DIGEST)


def test_who_stores_the_same_bytes_waits_for_a_removal_and_stores_them_anew(bench: Bench) -> None:
    """Two processes: one removes the object for a tenant that is gone as the other takes the same bytes of another tenant."""
    one, other = bench.process("one"), bench.process("other")
    stored(one)
    bench.clock.advance(CLAIM_SECONDS + 1)
    deleting, go_on = threading.Event(), threading.Event()

    def delete(sha256: str) -> None:
        deleting.set()
        assert go_on.wait(30)
        bench.filesystem.rm_file(bench.path(sha256))

    def upload() -> None:
        refer_by_upload(bench)
        stored(other)

    with ThreadPoolExecutor() as threads:
        collected = threads.submit(bench.catalogue.collect, delete)
        assert deleting.wait(30)
        storing = threads.submit(upload)
        wait_until(lambda: waits_for_a_lock(bench), 30)
        go_on.set()
        assert collected.result(30) == (DIGEST,)
        storing.result(30)
    assert read(bench.process("third")) == DATA


def test_a_removal_leaves_what_is_referred_to_at_the_same_moment(bench: Bench) -> None:
    one = bench.process("one")
    stored(one)
    bench.clock.advance(CLAIM_SECONDS + 1)
    with bench.store.engine.begin() as connection:
        bench.store.file_uses.note(connection, "job", [FILE])  # not committed yet
        one.collect()  # passes over what another process holds
    one.collect()
    assert read(bench.process("other")) == DATA


def test_what_is_referred_to_as_a_collection_goes_on_is_left(bench: Bench) -> None:
    one = bench.process()
    files = {stored(one, data) for data in (b"first", b"second")}
    bench.clock.advance(CLAIM_SECONDS + 1)
    left: list[str] = []

    def delete(sha256: str) -> None:
        left.extend(files - {sha256})
        with bench.store.engine.begin() as connection:
            bench.store.file_uses.note(connection, "job", [StoredFile(left[0], 1)])

    gone = bench.catalogue.collect(delete)
    assert len(gone) == len(left) == 1
    assert one.find(left[0]) is not None


def test_many_processes_that_store_refer_and_collect_at_once_lose_nothing(bench: Bench) -> None:
    processes = [bench.process(str(number)) for number in range(4)]

    def work(number: int) -> None:
        process = processes[number]
        for turn in range(12):
            for _ in range(10):  # as ``Patience`` does
                try:
                    stored(process)
                    bench.work.note(f"job-{number}-{turn}", [WorkFile("engine.onnx", FILE)])
                    break
                except ObjectStoreError:
                    continue
            else:
                raise AssertionError("it was never kept")
            assert bench.has_object(DIGEST)
            bench.work.forget(f"job-{number}-{turn}")
            bench.catalogue.collect(lambda sha256: bench.objects.remove(f"store/{sha256[:2]}/{sha256}"), seconds=0)

    with ThreadPoolExecutor() as threads:
        for done in [threads.submit(work, number) for number in range(4)]:
            done.result(120)
    assert not bench.has_object(DIGEST)


def waits_for_a_lock(bench: Bench) -> bool:
    with bench.store.engine.connect() as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return bool(connection.execute(sa.text(query)).scalar_one())
