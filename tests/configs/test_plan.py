"""scripts/plan.py and plan=true: every profile plans every task, a run's own plan is made of that run, the page is printed."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest
from conftest import REPO
from omegaconf import DictConfig, OmegaConf
from warm import Command

from mangakd.cli import plan as plans
from mangakd.cli.given import run_of
from mangakd.core.errors import UserError
from mangakd.planning import table
from mangakd.planning.advice import advise
from mangakd.planning.job import SPREAD, Machine
from mangakd.planning.memory import usable
from mangakd.planning.plan import Estimate, estimate

Compose = Callable[..., DictConfig]
HARDWARE = sorted(file.stem for file in (REPO / "conf" / "hardware").glob("[!_]*.yaml"))
PAGE = (REPO / "docs" / "how-to" / "planning.md").read_text(encoding="utf-8")
RESPONSE = "task=response"


@pytest.fixture
def plan(compose: Compose) -> Callable[..., Estimate]:
    """plan(profile, *overrides) → the estimate of scripts/plan.py."""

    def planned(profile: str, *overrides: str) -> Estimate:
        config = compose(f"hardware={profile}", *overrides, name="plan")
        return plans.estimated(config, run_of(config, Path(), profile))

    return planned


@pytest.mark.parametrize("profile", HARDWARE)
@pytest.mark.parametrize("task", ["intent", "rerank", "embedding", "response"])
def test_every_profile_plans_every_task(profile: str, task: str, plan: Callable[..., Estimate]) -> None:
    found = plan(profile, f"task={task}")
    assert found.total[1] > found.total[0] > 0
    assert table.one(found).startswith(table.LABEL) and "assumptions" in table.one(found)
    assert bool(found.advice) == (not found.fits)
    for change in advise(found.student, found.teacher, found.machine, found.job):
        after = estimate(found.student, found.teacher, change.machine, change.job)
        assert after.fits and after.bytes <= usable(change.machine)
        # Smaller micro-batches are not a smaller batch.
        assert change.job.batch * change.job.accumulation == found.job.batch * found.job.accumulation


@pytest.mark.parametrize("profile", HARDWARE)
def test_profiles_have_only_figures_that_planning_reads(profile: str) -> None:
    figures = OmegaConf.load(REPO / "conf" / "hardware" / f"{profile}.yaml").get("machine") or {}
    assert set(figures) <= {field.name for field in fields(Machine)} - {"name", *SPREAD}


@pytest.mark.parametrize(
    ("workload", "student", "teacher"),
    [("intent", 14.5e6, 66e6), ("response", 8.03e9, None), ("response_3b", 3.21e9, None), ("response_soft", 8.03e9, 70.6e9),
     ("rewrite", 77.0e6, 247.6e6)],
)  # fmt: skip
def test_published_sizes(workload: str, student: float, teacher: float | None, plan: Callable[..., Estimate]) -> None:
    found = plan("h100", f"task={workload.partition('_')[0]}", f"workload={workload}")
    assert found.student.parameters == pytest.approx(student, rel=0.015)
    assert (found.teacher and found.teacher.parameters) == (teacher and pytest.approx(teacher, rel=0.015))


def test_documents_of_queries_are_sequences(plan: Callable[..., Estimate]) -> None:
    one, ten = (plan("a100", "task=rerank", f"workload.sequences={count}") for count in (1, 10))
    assert ten.job.examples == 10 * one.job.examples == 100_000 and ten.job.eval_examples == 10_000
    assert ten.job.batch == 10 * one.job.batch == 80 and "10 sequences a row" in table.one(ten)
    assert ten.flops["student"] == pytest.approx(10 * one.flops["student"])
    assert ten.memory["activations"] == 10 * one.memory["activations"]


@pytest.mark.parametrize("profile", HARDWARE)
def test_a_reranker_fits_each_profile_as_it_is(profile: str, plan: Callable[..., Estimate]) -> None:
    figures = [] if OmegaConf.load(REPO / "conf" / "hardware" / f"{profile}.yaml").get("machine") else None
    assert figures is None or plan(profile, "task=rerank").fits


def test_an_embedding_plan_ends_with_the_size_of_a_search_index(compose: Compose) -> None:
    config = compose("task=embedding", "hardware=a100", "task.dims=[64,128]", name="plan")
    lines = plans.plan_of(config, run_of(config, Path())).splitlines()[-4:]
    assert lines[0].startswith("a search index of 1,000,000 vectors")
    assert [line.split() for line in lines[1:]] == [
        ["384", "dimensions", "fp32", "1.54", "GB", "fp16", "0.77", "GB", "int8", "0.38", "GB"],
        ["128", "dimensions", "fp32", "0.51", "GB", "fp16", "0.26", "GB", "int8", "0.13", "GB"],
        ["64", "dimensions", "fp32", "0.26", "GB", "fp16", "0.13", "GB", "int8", "0.06", "GB"],
    ]


def test_llama_8b_does_not_train_whole_on_one_a100(plan: Callable[..., Estimate]) -> None:
    found = plan("a100", RESPONSE)
    assert not found.fits
    assert sum(found.memory[part] for part in ("weights", "gradients", "optimizer")) == 16 * found.student.parameters
    assert any(text.startswith("LoRA") for text in found.advice)
    assert any(text.startswith("FSDP over 4") for text in found.advice)
    assert plan("a100", RESPONSE, "workload=response_lora").fits
    assert plan("a100_x4_fsdp", RESPONSE).fits


def test_changes_are_added_up_where_none_is_enough_and_none_is_idle(plan: Callable[..., Estimate]) -> None:
    found = plan("a10g_x2_ddp", RESPONSE)
    for change in advise(found.student, found.teacher, found.machine, found.job):
        assert " + " in change.text
        undone = [replace(change.job, checkpointing=False), replace(change.job, lora=None)]
        for job in undone:
            assert job == change.job or not estimate(found.student, found.teacher, change.machine, job).fits


def test_the_profile_places_the_teacher_of_a_workload(plan: Callable[..., Estimate]) -> None:
    sharded = plan("a100_x4_fsdp", "hardware.teacher.placement=sharded", "hardware.teacher.dtype=bfloat16")
    assert (sharded.job.teacher, sharded.job.teacher_dtype) == ("sharded", "bfloat16")
    assert sharded.memory["teacher"] < plan("a100_x4_fsdp").memory["teacher"]


def test_figures_on_the_command_line(plan: Callable[..., Estimate]) -> None:
    assert plan("a100", "hardware.machine.usd_per_hour=1.5").machine.hourly == 1.5
    own = "hardware.machine={memory_gb: 8, tflops: {fp32: 1}, bandwidth_gb_s: 20, mfu: [0.2, 0.4]}"
    assert plan("auto", "hardware.accelerator=cpu", own).machine.memory_gb == 8
    assert "this machine" in plan("auto", "hardware.accelerator=cpu").machine.name


def test_compare_has_a_column_for_each_profile_and_keeps_the_overrides(compose: Compose) -> None:
    config = compose("hardware=cpu", "hardware.machine.usd_per_hour=7", RESPONSE, "compare=true", name="plan")
    text = plans.compared(config)
    assert text.startswith(table.LABEL)
    assert text.splitlines()[2].split() == [name for name in HARDWARE if name not in ("auto", "cpu_ddp", "cpu_fsdp")]
    assert "own machine" not in text


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["hardware=a100", "hardware.machine=null"], r"hardware\.machine=null.* cuda .*hardware=a100, .*hardware\.machine='"),
        (["hardware=a100", "hardware.machine=a100"], r"hardware\.machine=a100 must be null"),
        (["hardware=a100", "+hardware.machine.memory=8"], r"memory is unknown; did you mean memory_gb"),
        (["hardware=a100", "hardware.machine.mfu=0.4"], r"hardware\.machine\.mfu must be"),
        (["hardware=a100", "hardware.precision=fp8"], r"hardware\.precision=fp8 must be"),
        (["hardware=a100", "hardware.devices=2"], r"strategy=one with devices=2"),
        (["hardware=a100", "hardware.batch_size=0"], r"hardware\.batch_size=0 must be"),
        (["hardware=a100", "task=rerank", "workload.sequences=0"], r"workload\.sequences=0 must be a whole number from 1"),
        (["hardware=a100", "workload.epochs=0"], r"whole numbers above 0; found \{'epochs': 0\}"),
        (["hardware=a100", "workload.student.sizes.num_attention_heads=5"], r"workload\.student\.sizes gives sizes"),
        (["hardware=a100", "workload=response_lora"], r"workload=response_lora .* Choose task=response or task=rewrite\."),
    ],
)  # fmt: skip
def test_mistakes_are_named(overrides: list[str], words: str, compose: Compose) -> None:
    with pytest.raises(UserError, match=words):
        config = compose(*overrides, name="plan")
        plans.plan_of(config, run_of(config, Path()))


def test_what_a_workload_does_not_read_is_said(
    compose: Compose, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "start_logging", lambda _: None)  # keeps the fixture's handler
    plans.run(compose("hardware=a100", "trainer.max_epochs=9", "student=bert_mini", name="plan"))
    assert "trainer.max_epochs, student: not read by workload=intent" in caplog.text


def test_a_run_of_language_models_is_planned(compose: Compose, tmp_path: Path) -> None:
    config = compose(
        RESPONSE, "plan=true", "hardware=a100", "data.train_limit=20", "data.val_limit=5", "data.test_limit=5"
    )
    plan = plans.estimated(config, run_of(config, tmp_path / "run"))
    assert plan.teacher and plan.student.outputs == plan.teacher.outputs == 2048 and plan.student.per_token
    assert (plan.job.batch, plan.job.accumulation, plan.job.teacher, plan.job.soft_targets) == (
        8,
        4,
        "replicated",
        True,
    )
    assert 20 < plan.job.length < 200 and plan.fits


@pytest.fixture
def run(compose: Compose, tiny_teacher: Path, tiny_csv: Path, tmp_path: Path) -> Callable[..., Estimate]:
    """run(*overrides) → the estimate of a tiny run, as plan=true makes it."""
    own = [
        "hardware=a10g_x2_ddp",
        "data=files",
        f"data.path={tiny_csv}",
        f"teacher.path={tiny_teacher}",
        "student.layers=[2]",
    ]

    def planned(*overrides: str) -> Estimate:
        config = compose(*own, *overrides)
        return plans.estimated(config, run_of(config, tmp_path / "run", "a10g_x2_ddp"))

    return planned


def test_the_plan_of_a_run_is_made_of_that_run(run: Callable[..., Estimate]) -> None:
    found = run("losses=[output,hidden,attention]", "hardware.batch_size=4", "hardware.accumulate=3")
    assert (found.student.layers, found.teacher and found.teacher.layers, found.student.outputs) == (1, 3, 3)
    job = found.job
    assert (job.batch, job.accumulation, job.epochs, job.precision) == (4, 3, 5, "bf16-mixed")
    assert job.examples + job.eval_examples < 60 and job.eval_examples > 0
    assert 0 < job.length <= job.longest < 20  # of short texts, not data.max_length
    assert (job.teacher, job.soft_targets, job.hidden_pairs, job.attention_pairs) == ("replicated", True, 2, 1)


def test_batches_of_tokens_are_planned_by_their_budget(run: Callable[..., Estimate]) -> None:
    """Memory is that of a full batch of the longest texts, time that of the batches on average."""
    plan = run("hardware.tokens_per_batch=80", "hardware.accumulate=2")
    job = plan.job
    # 48 texts in 2 steps of 2 devices × 2 batches, each of at most 80 // 11 = 7 texts.
    assert (job.examples, job.longest, job.budget, job.batch) == (48, 11, 80, 6)
    assert f"{job.length} tokens a device on average, 80 at most, accumulation 2" in table.one(plan)
    assert plan.memory == run("hardware.batch_size=7", "hardware.accumulate=2").memory


def test_a_workload_of_tokens_and_what_makes_it_fit(plan: Callable[..., Estimate]) -> None:
    found = plan("a100", RESPONSE, "workload=response_lora", "hardware.tokens_per_batch=65536", "hardware.accumulate=1")
    assert (found.job.batch, found.job.budget, found.fits) == (65536 // found.job.length, 65536, False)
    (smaller,) = [change for change in found.advice if change.startswith("micro-batches")]
    assert smaller.startswith("micro-batches of 4,096 tokens with accumulation 16")


def test_where_the_teacher_of_a_run_is(run: Callable[..., Estimate]) -> None:
    assert run("teacher=cached").job.teacher == "cached"
    assert run("hardware.teacher.placement=cached").job.teacher == "cached"
    alone = run("losses=hard_label").job
    assert (alone.teacher, alone.soft_targets) == ("none", False)
    one, three = run().teacher, run("teacher=ensemble").teacher
    assert one and three and three.parameters == 3 * one.parameters


def test_a_stage_is_planned_with_its_texts_and_its_teacher(run: Callable[..., Estimate]) -> None:
    alone, more = run().job, run("stages=new_texts", "augment.copies=2", "+stages.distil.epochs=2").job
    assert alone.examples == 48 and 2.5 * 48 < more.examples <= 3 * 48  # some short texts have no new variant
    assert (more.teacher, more.epochs) == ("cached", 2)
    assert run("stages=new_texts", "+stages.distil.limit=30").job.examples == 30


def test_plan_true_tells_of_the_baseline_and_leaves_no_folder(
    compose: Compose, tiny_teacher: Path, tiny_csv: Path, tmp_path: Path
) -> None:
    own = ["hardware=h100", "data=files", f"data.path={tiny_csv}", f"teacher.path={tiny_teacher}", "student.layers=[2]"]
    texts = [
        plans.plan_of(config, run_of(config, tmp_path / "run"))
        for config in (compose(*own, f"baseline={baseline}") for baseline in ("true", "false"))
    ]
    assert "intent as configured on h100" in texts[0]
    assert "without a teacher, takes another" in texts[0] and "another" not in texts[1]
    assert not (tmp_path / "run").exists()


def test_the_command_prints_and_leaves_nothing(command: Command, tmp_path: Path) -> None:
    done = command("scripts/plan.py", "--compare", RESPONSE, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in PAGE
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("workload", ["intent", "response", "response_lora"])
def test_the_page_shows_what_is_printed(workload: str, compose: Compose) -> None:
    config = compose(f"task={workload.partition('_')[0]}", f"workload={workload}", "hardware=a100", name="plan")
    assert plans.compared(config) in PAGE, f"print {workload} into docs/how-to/planning.md again"
    if workload == "response":
        assert plans.plan_of(config, run_of(config, Path())) in PAGE


def test_a_run_of_a_rewriter_is_planned_by_source_and_target(compose: Compose, tmp_path: Path) -> None:
    config = compose(
        "task=rewrite", "plan=true", "hardware=a100", "data.train_limit=64", "data.val_limit=5", "data.test_limit=5"
    )
    run = run_of(config, tmp_path / "run")
    plan = plans.estimated(config, run)
    train = run.material.splits["train"]
    targets, sources = train.decoder_tokens, train.student.lengths - train.decoder_tokens
    assert plan.student.decoder and plan.student.decoder.layers == 1
    assert (plan.job.longest_target, plan.job.longest) == (targets.max(), sources.max() + targets.max())
    assert targets.mean() <= plan.job.target <= targets.max() and sources.mean() <= plan.job.length - plan.job.target
