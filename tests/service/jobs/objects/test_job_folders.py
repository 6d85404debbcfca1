from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import onnx
import pytest
import sqlalchemy as sa

from engine_builder.workspace.workspace import FileRef, Workspace
from service.errors import DamagedArtifactError
from service.jobs.objects.catalogue import CLAIM_SECONDS
from service.jobs.objects.job_folders import JobFolders, OwnJobFolders, SharedJobFolders
from service.jobs.records import NewJob
from service.worker.stage_log import LOG_NAME
from tests.service.jobs.objects.conftest import Bench

JOB = "job"


class Deployment(Protocol):
    """Two processes of one deployment: what they call, and where the folder of the job is for each."""

    @property
    def folders(self) -> Sequence[JobFolders]: ...

    @property
    def roots(self) -> Sequence[Path]: ...


class JobFoldersContract:
    """What all processes see of the files of an unfinished job; a test class for each kind gives the ``deployment``."""

    def test_inputs_laid_out_by_one_process_are_read_by_another(self, deployment: Deployment) -> None:
        inputs = Workspace(deployment.roots[0]).write_bytes("inputs/model.onnx", b"model")
        one, other = deployment.folders
        assert not other.is_there("another job")
        one.laid_out(JOB)
        one.leave(JOB)
        assert one.is_there(JOB)
        assert other.is_there(JOB)
        other.begin(JOB)
        other.ready(JOB, [inputs])
        other.ready(JOB, [inputs])
        assert (deployment.roots[1] / "inputs/model.onnx").read_bytes() == b"model"

    def test_what_a_stage_makes_is_read_elsewhere_in_the_content_that_is_asked_for(self, deployment: Deployment) -> None:
        one, other = deployment.folders
        for folders in (one, other):
            folders.begin(JOB)
        made = Workspace(made_root := deployment.roots[0]).write_bytes("ranges/table.npz", b"first")
        one.made(JOB, [made])
        other.ready(JOB, [made])
        assert (deployment.roots[1] / made.file).read_bytes() == b"first"
        again = Workspace(made_root).write_bytes("ranges/table.npz", b"second")
        one.made(JOB, [again])
        other.ready(JOB, [again])
        assert (deployment.roots[1] / again.file).read_bytes() == b"second"

    def test_what_a_table_names_comes_with_it(self, deployment: Deployment) -> None:
        one, other = deployment.folders
        one.begin(JOB)
        workspace = Workspace(deployment.roots[0])
        weights = workspace.write_bytes("weights.npz", b"weights")
        inner = workspace.write_json("inner.json", {"deep": [{"weights": {"file": weights.file, "sha256": weights.sha256}}]})
        outer = workspace.write_json("outer.json", {"inner": {"file": inner.file, "sha256": inner.sha256}})
        one.made(JOB, [outer, inner, weights])
        other.begin(JOB)
        other.ready(JOB, [outer])
        assert (deployment.roots[1] / "weights.npz").read_bytes() == b"weights"

    def test_weights_beside_a_model_come_with_it_and_are_no_links(self, deployment: Deployment) -> None:
        one, other = deployment.folders
        model = model_with_weights(deployment.roots[0] / "built", [1.0, 2.0])
        one.begin(JOB)
        one.made(JOB, [model])
        other.begin(JOB)
        other.ready(JOB, [model])
        back = onnx.load(deployment.roots[1] / model.file)  # refuses links
        assert onnx.numpy_helper.to_array(back.graph.initializer[0]).tolist() == [1.0, 2.0] * 200

    def test_the_log_is_seen_elsewhere_and_goes_on_there(self, deployment: Deployment) -> None:
        one, other = deployment.folders
        assert other.open_log(JOB) is None
        one.begin(JOB)
        Workspace(deployment.roots[0])
        for line in (b"one\n", b"two\n"):
            with (deployment.roots[0] / LOG_NAME).open("ab") as log:
                log.write(line)
            one.made(JOB, [])
        seen = other.open_log(JOB)
        assert seen is not None
        with seen:
            assert seen.read() == b"one\ntwo\n"
        other.begin(JOB)
        with (deployment.roots[1] / LOG_NAME).open("ab") as log:
            log.write(b"three\n")
        other.made(JOB, [])
        seen = one.open_log(JOB)
        assert seen is not None
        with seen:
            assert seen.read() == b"one\ntwo\nthree\n"

    def test_what_a_stage_elsewhere_prints_is_taken_into_the_log(self, deployment: Deployment) -> None:
        one, other = deployment.folders
        logs = [root / LOG_NAME for root in deployment.roots]
        one.begin(JOB)
        Workspace(deployment.roots[0])
        with logs[0].open("ab") as log:
            log.write(b"one\n")
        one.made(JOB, [])
        other.begin(JOB)
        with logs[1].open("ab") as log:
            log.write(b"elsewhere\n")
        other.made(JOB, [])
        one.take_log(JOB)
        one.take_log(JOB)
        assert logs[0].read_bytes() == b"one\nelsewhere\n"

    def test_a_folder_that_is_dropped_goes_and_its_files_stay_under_other_names(self, deployment: Deployment) -> None:
        one, other = deployment.folders
        for folders in (one, other):
            folders.begin(JOB)
        workspace = Workspace(deployment.roots[0])
        early, beside = (workspace.write_bytes(f"{folder}/engine.plan", b"plan") for folder in ("ahead/1", "ahead/11"))
        kept = workspace.link(workspace.path(early), "trials/1.plan")
        one.made(JOB, [early, beside, kept])
        for folders in (one, other, one):
            folders.drop(JOB, "ahead/1")
        assert not (deployment.roots[0] / early.file).exists()
        other.ready(JOB, [kept, beside])
        assert (deployment.roots[1] / kept.file).read_bytes() == b"plan"
        assert (deployment.roots[1] / beside.file).read_bytes() == b"plan"

    def test_a_removed_job_has_nothing_left(self, deployment: Deployment) -> None:
        one, other = deployment.folders
        Workspace(deployment.roots[0]).write_bytes("inputs/model.onnx", b"model")
        one.laid_out(JOB)
        one.remove(JOB)
        one.remove(JOB)
        assert not one.is_there(JOB)
        assert not other.is_there(JOB)
        assert not deployment.roots[0].exists()


class OneFolder:
    def __init__(self, root: Path) -> None:
        self.folders = (SharedJobFolders(root), SharedJobFolders(root))
        self.roots = (root / JOB, root / JOB)


class OwnFolders:
    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.ended: set[str] = set()
        roots = [bench.root / f"jobs-{number}" for number in range(2)]
        self.folders = tuple(
            OwnJobFolders(root, bench.process(f"cache-of-{root.name}"), bench.work, lambda job_id: job_id in self.ended) for root in roots
        )
        self.roots = tuple(root / JOB for root in roots)


class TestSharedJobFolders(JobFoldersContract):
    @pytest.fixture
    def deployment(self, tmp_path: Path) -> OneFolder:
        return OneFolder(tmp_path)


class TestOwnJobFolders(JobFoldersContract):
    @pytest.fixture
    def deployment(self, bench: Bench) -> OwnFolders:
        return OwnFolders(bench)

    def test_the_objects_of_a_job_are_kept_until_it_is_removed(self, deployment: OwnFolders) -> None:
        bench = deployment.bench
        made = Workspace(deployment.roots[0]).write_bytes("engine.onnx", b"engine")
        deployment.folders[0].made(JOB, [made])
        bench.clock.advance(CLAIM_SECONDS + 1)
        bench.process().collect()
        assert bench.has_object(made.sha256)
        deployment.folders[1].remove(JOB)
        bench.process().collect()
        assert not bench.has_object(made.sha256)

    def test_the_objects_of_a_folder_that_is_dropped_are_kept_as_long_as_they_have_another_name(self, deployment: OwnFolders) -> None:
        bench, folders = deployment.bench, deployment.folders[0]
        workspace = Workspace(deployment.roots[0])
        taken, unused = workspace.write_bytes("ahead/1/engine", b"taken"), workspace.write_bytes("ahead/1/scores", b"unused")
        kept = workspace.link(workspace.path(taken), "trials/1.plan")
        folders.made(JOB, [taken, unused, kept])
        folders.drop(JOB, "ahead/1")
        assert names_of(bench) == [kept.file]
        bench.clock.advance(CLAIM_SECONDS + 1)
        bench.process().collect()
        assert bench.has_object(taken.sha256)
        assert not bench.has_object(unused.sha256)

    @pytest.mark.parametrize("folder", ["ahead/a%b", "ahead/a_b"])
    def test_a_folder_is_dropped_by_its_name_alone(self, deployment: OwnFolders, folder: str) -> None:
        workspace = Workspace(deployment.roots[0])
        deployment.folders[0].made(JOB, [workspace.write_bytes(f"{name}/x", b"x") for name in (folder, "ahead/axb")])
        deployment.folders[0].drop(JOB, folder)
        assert names_of(deployment.bench) == ["ahead/axb/x"]

    def test_a_stage_beside_others_leaves_the_log_to_them(self, deployment: OwnFolders) -> None:
        one, beside = deployment.folders
        for folders, root, text in ((one, deployment.roots[0], b"one\n"), (beside, deployment.roots[1], b"printed beside\n")):
            folders.begin(JOB)
            with (root / LOG_NAME).open("ab") as log:
                log.write(text)
        one.made(JOB, [])
        made = Workspace(deployment.roots[1]).write_bytes("ahead/1/engine", b"engine")
        beside.made(JOB, [made], with_log=False)
        one.take_log(JOB)
        assert (deployment.roots[0] / LOG_NAME).read_bytes() == b"one\n"
        assert names_of(deployment.bench) == [made.file, LOG_NAME]

    def test_a_log_that_does_not_go_on_from_the_jobs_is_replaced_by_that(self, deployment: OwnFolders) -> None:
        one, other = deployment.folders
        logs = [root / LOG_NAME for root in deployment.roots]
        one.begin(JOB)
        logs[0].write_bytes(b"one\n")
        one.made(JOB, [])
        other.begin(JOB)
        with logs[1].open("ab") as log:
            log.write(b"printed beside, and long\n")
        with logs[0].open("ab") as log:
            log.write(b"two\n")
        one.made(JOB, [])
        other.begin(JOB)
        assert logs[1].read_bytes() == b"one\ntwo\n"
        with logs[1].open("ab") as log:
            log.write(b"elsewhere\n")
        other.begin(JOB)
        assert logs[1].read_bytes() == b"one\ntwo\nelsewhere\n"

    def test_a_lost_object_is_said_with_the_job_and_the_file(self, deployment: OwnFolders) -> None:
        made = Workspace(deployment.roots[0]).write_bytes("engine.onnx", b"engine")
        deployment.folders[0].made(JOB, [made])
        deployment.bench.filesystem.pipe_file(deployment.bench.path(made.sha256), b"ENGINE")
        with pytest.raises(DamagedArtifactError, match=r"^job job: engine\.onnx: file sha256:"):
            deployment.folders[1].ready(JOB, [made])
        assert not (deployment.roots[1] / "engine.onnx").exists()

    def test_folders_of_jobs_that_ended_elsewhere_are_swept(self, deployment: OwnFolders) -> None:
        folders, root = deployment.folders[0], deployment.roots[0].parent
        for name in (JOB, "running", "here"):
            (root / name).mkdir(parents=True)
        deployment.ended |= {JOB, "here"}
        folders.sweep(lambda job_id: job_id == "here")
        assert {path.name for path in root.iterdir()} == {"running", "here"}

    def test_only_the_largest_log_is_kept(self, deployment: OwnFolders) -> None:
        deployment.roots[0].mkdir(parents=True)
        for _ in range(3):
            with (deployment.roots[0] / LOG_NAME).open("ab") as log:
                log.write(b"line\n")
            deployment.folders[0].made(JOB, [])
        assert names_of(deployment.bench) == [LOG_NAME]

    def test_what_a_process_left_that_died_as_its_job_ended_is_forgotten(self, deployment: OwnFolders) -> None:
        bench = deployment.bench
        waiting = NewJob(id="waiting", target="t", config={}, inputs={}, idempotency_key=None, request_sha256="")
        bench.store.create(waiting)
        made = FileRef("engine.onnx", Workspace(deployment.roots[0]).write_bytes("engine.onnx", b"engine").sha256)
        deployment.folders[0].made(JOB, [made])
        (deployment.roots[0].parent / "waiting").mkdir()
        Workspace(deployment.roots[0].parent / "waiting").write_bytes("other", b"other")
        deployment.folders[0].laid_out("waiting")
        bench.work.forget_ended(CLAIM_SECONDS)
        assert names_of(bench) == ["engine.onnx", "other"]
        bench.clock.advance(CLAIM_SECONDS + 1)
        bench.work.forget_ended(CLAIM_SECONDS)
        assert names_of(bench) == ["other"]


def names_of(bench: Bench) -> list[str]:
    with bench.store.engine.connect() as connection:
        return list(connection.execute(sa.text("SELECT name FROM work_files ORDER BY name")).scalars())


def model_with_weights(folder: Path, values: Sequence[float]) -> FileRef:
    """Write a model whose one initializer, 200 times the values, lies in a file of its own."""
    folder.mkdir(parents=True)
    weights = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [len(values) * 200], list(values) * 200)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["w"], ["y"])],
        "g",
        [],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [len(values) * 200])],
        [weights],
    )
    onnx.save_model(
        onnx.helper.make_model(graph), folder / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    return Workspace(folder.parent).adopt("built/model.onnx")
