"""The recipes that recipes.py trains, as overrides of train.py, and what each is compared with."""

COMMON = [
    "task=intent", "hardware=cpu", "resume=auto", "student=tinybert_4l_312d", "teacher.fit.epochs=5",
    "augment.copies=3", "distill.alpha=0.9",
]  # fmt: skip
FEW = ["data.labelled_share=0.1", "teacher.fit.epochs=30", "distill.temperature=1", "augment.copies=1"]
ALL_TEXTS = "[labelled,unlabelled,augmented]"
STORED = "+stages.distil.teacher=stored"
RECIPES: dict[str, list[str]] = {  # 235 steps are an epoch of the labelled texts, 937 with three new ones of each
    "no_kd": ["losses=[hard_label]", "distill.alpha=0", "trainer.max_epochs=20", "optim.lr=5e-4"],
    "two_stage": ["stages=two_stage", "stages.features.epochs=2", "stages.soft_targets.epochs=3"],
}
ONE_COPY = "augment.copies=1"  # 470 steps are an epoch of labelled and new texts
RECIPES |= {
    "short_no_kd": ["losses=[hard_label]", "distill.alpha=0", "trainer.max_epochs=6"],
    "short_output_only": ["trainer.max_epochs=6", STORED],
    "short_output_new_texts": [ONE_COPY, "trainer.max_epochs=3", STORED, "+stages.distil.texts=[labelled,augmented]"],
    "short_feature_only": [
        ONE_COPY, "stages=feature_only", "distill.alpha=0", "stages.features.epochs=2", "stages.head.epochs=2",
    ],
    "short_two_stage": [ONE_COPY, "stages=two_stage", "stages.features.epochs=1", "stages.soft_targets.epochs=2"],
    "short_combined": [ONE_COPY, "stages=combined", "trainer.max_epochs=3"],
    "short_three_stage": [
        ONE_COPY, "stages=three_stage", "stages.features={losses: [hidden], texts: [labelled, augmented], epochs: 1}",
        "stages.soft_targets={losses: [output], texts: [labelled, augmented], epochs: 1, teacher: stored}",
        "stages.labels.epochs=2",
    ],
    "few_no_kd": [
        *FEW, "losses=[hard_label]", "distill.alpha=0", "trainer.max_epochs=98", "+trainer.check_val_every_n_epoch=5",
    ],
    "few_output_only": [*FEW, "trainer.max_epochs=10", STORED, "+stages.distil.texts=[labelled,unlabelled]"],
    "few_two_stage": [
        *FEW, "stages=two_stage", f"stages.features.texts={ALL_TEXTS}", f"stages.soft_targets.texts={ALL_TEXTS}",
        "stages.features.epochs=2", "stages.soft_targets.epochs=3",
    ],
}  # fmt: skip
START = ["student.start=teacher", "optim.lr=5e-4"]
TUNED = ["student.start=teacher", "optim.lr=3e-4"]  # the rate that won on validation (`lever_lr…`)
RECIPES |= {
    "start_no_kd": [*START, *RECIPES["short_no_kd"]],
    "start_output_only": [*START, *RECIPES["short_output_only"]],
    "start_output_new_texts": [*START, *RECIPES["short_output_new_texts"]],
}
NEW_TEXTS = "+stages.distil.texts=[labelled,augmented]"
LAST = "+stages.distil.keep=last"  # the best epoch by accuracy may be an early one, far from the teacher
HIDDEN = "losses=[hard_label,output,hidden]"
RECIPES |= {  # three new texts of each, as two_stage has
    "start_long_no_kd": [*RECIPES["no_kd"], *TUNED],
    "start_long_output_new_texts": [*TUNED, "trainer.max_epochs=5", STORED, NEW_TEXTS, LAST],
    "few_start_no_kd": [*TUNED, *RECIPES["few_no_kd"]],
    "few_start_output_new_texts": [
        *FEW,
        *TUNED,
        "trainer.max_epochs=5",
        STORED,
        f"+stages.distil.texts={ALL_TEXTS}",
        LAST,
    ],
}
LEVER = RECIPES["start_output_new_texts"]
RECIPES |= {  # one change each to start_output_new_texts
    "lever_t1": [*LEVER, "distill.temperature=1"],
    "lever_t4": [*LEVER, "distill.temperature=4"],
    "lever_lr1e-3": [*LEVER, "optim.lr=1e-3"],
    "lever_lr3e-4": [*LEVER, "optim.lr=3e-4"],
    "lever_lr1.5e-4": [*LEVER, "optim.lr=1.5e-4"],
    **{f"lever_no_kd_lr{rate}": [*RECIPES["start_no_kd"], f"optim.lr={rate}"] for rate in ("1e-3", "3e-4", "1.5e-4")},
    "few_start_no_kd_lr1e-4": [*RECIPES["few_start_no_kd"], "optim.lr=1e-4"],
}
WITH = RECIPES["lever_lr3e-4"]
LIVE = "stages.distil.teacher=run"  # a stored teacher keeps answers alone
RECIPES |= {  # one change each to lever_lr3e-4, the recipe of student=tinybert_from_teacher
    "with_hidden": [*WITH, LIVE, HIDDEN],
    "with_hidden_last": [*WITH, LIVE, HIDDEN, "losses.hidden.layer_map=last"],
    "with_relation": [*WITH, LIVE, "losses=[hard_label,output,relation]"],
    "with_attention": [*WITH, LIVE, "losses=[hard_label,output,attention]"],
    "with_features_first": [*TUNED, *RECIPES["short_two_stage"]],
    "with_copies3": [*TUNED, "trainer.max_epochs=2", "+trainer.max_steps=1407", STORED, NEW_TEXTS],
    "with_copies5_once": [*WITH, "augment.copies=5", "trainer.max_epochs=1"],
    "with_strong_copies": [*WITH, "augment.replace=0.5"],
    "with_mild_copies": [*WITH, "augment.replace=0.1"],
    "with_soft_only": [*WITH, "distill.alpha=1", "losses=[output]"],
    "with_no_dropout": [*WITH, *(f"+student.sizes.{name}_dropout_prob=0.0" for name in ("hidden", "attention_probs"))],
    "with_teacher_3_epochs": [*WITH, "teacher.fit.epochs=3"],
    "with_teacher_10_epochs": [*WITH, "teacher.fit.epochs=10"],
    "with_three_teachers": [*WITH, "teacher=ensemble"],
    "with_entropy_temperature": [*WITH, "losses.output.temperature_by=sample"],
}
WITH_FEW = RECIPES["few_start_output_new_texts"]
RECIPES |= {  # the same of a tenth of the labels
    "with_few_soft_only": [*WITH_FEW, "distill.alpha=1", "losses=[output]"],
    "with_few_hidden": [*WITH_FEW, LIVE, HIDDEN],
    "with_few_no_dropout": [*WITH_FEW, *RECIPES["with_no_dropout"][-2:]],
    "with_few_long": [*WITH_FEW, "augment.copies=3", "trainer.max_epochs=5"],
    "with_few_three_teachers": [*WITH_FEW, "teacher=ensemble"],
}
ADAPTIVE = [*FEW, "augment.copies=0", "trainer.max_epochs=4", STORED, "+stages.distil.texts=[labelled,unlabelled]"]
RECIPES |= {
    "adaptive_t1": ADAPTIVE,
    "adaptive_t4": [*ADAPTIVE, "distill.temperature=4"],
    "adaptive_t4_sample": [*ADAPTIVE, "distill.temperature=4", "losses.output.temperature_by=sample"],
    "adaptive_t4_class": [*ADAPTIVE, "distill.temperature=4", "losses.output.temperature_by=class"],
    "adaptive_entropy": [*ADAPTIVE, "losses.output.entropy=0.1"],
    "adaptive_smoothing": [*ADAPTIVE, "losses.hard_label.label_smoothing=0.1"],
    "adaptive_smoothing_aware": [
        *ADAPTIVE, "losses.hard_label.label_smoothing=0.1", "losses.hard_label.smoothing_aware=true",
    ],
}  # fmt: skip
# 782 steps are an epoch of the labelled texts, and of as many unlabelled ones
MANGA = ["data=manga_intent", "hardware.batch_size=32", "teacher.fit.epochs=1", "augment.copies=0"]
RECIPES |= {
    "manga_no_kd": [*MANGA, "losses=[hard_label]", "distill.alpha=0", "trainer.max_epochs=2"],
    **{
        f"manga_output_only_t{t}": [*MANGA, "trainer.max_epochs=2", STORED, f"distill.temperature={t}"]
        for t in (1, 2, 4, 8)
    },
    "manga_unlabelled": [
        *MANGA, "data.unlabelled=25000", "trainer.max_epochs=1", STORED, "+stages.distil.texts=[labelled,unlabelled]",
        "distill.temperature=2",
    ],
    "manga_two_stage": [
        *MANGA, "stages=two_stage", "stages.features.texts=[labelled]", "stages.soft_targets.texts=[labelled]",
        "stages.features.epochs=1", "stages.soft_targets.epochs=1", "distill.temperature=2",
    ],
}  # fmt: skip
RECIPES |= {  # the recipe that won on CLINC150's validation, once, on data that nothing was tuned on
    "manga_start_no_kd": [*TUNED, *RECIPES["manga_no_kd"]],
    "manga_start_output_new_texts": [*MANGA, *TUNED, ONE_COPY, "trainer.max_epochs=1", STORED, NEW_TEXTS],
    # 64 steps are an epoch of the labelled texts
    "medquad_no_kd": ["losses=[hard_label]", "distill.alpha=0", "trainer.max_epochs=10"],
    "medquad_start_no_kd": [*TUNED, "losses=[hard_label]", "distill.alpha=0", "trainer.max_epochs=10"],
    "medquad_start_output_new_texts": [*TUNED, ONE_COPY, "trainer.max_epochs=5", STORED, NEW_TEXTS],
}
# 63 steps of 32 are an epoch of the labelled texts; three teachers from three seeds, of which the first gives the start
ENSEMBLE = ["data=manga_intent", "data.train_limit=2000", "data.val_limit=500", "hardware.batch_size=32", *TUNED]
UNLABELLED = ["stages=ensemble_to_one", f"stages.distil.texts={ALL_TEXTS}", "data.unlabelled=6000", ONE_COPY]
RECIPES |= {
    "ensemble_no_kd": [*ENSEMBLE, "losses=[hard_label]", "distill.alpha=0", "trainer.max_epochs=16"],
    "ensemble_output_new_texts": [*ENSEMBLE, "stages=ensemble_to_one", "trainer.max_epochs=4"],
    "ensemble_unlabelled": [*ENSEMBLE, *UNLABELLED, "trainer.max_epochs=2"],
    "ensemble_long_no_kd": [*ENSEMBLE, "losses=[hard_label]", "distill.alpha=0", "trainer.max_epochs=32"],
    "ensemble_long_unlabelled": [*ENSEMBLE, *UNLABELLED, "trainer.max_epochs=4", LAST],
}
BASELINES = {
    "adaptive_": "adaptive_t1",
    "few_start_": "few_start_no_kd",
    "few_": "few_no_kd",
    "lever_no_kd": "lever_no_kd_lr3e-4",
    "lever_lr3e-4": "lever_no_kd_lr3e-4",
    "lever_": "start_no_kd",
    "with_few_": "few_start_no_kd",
    "with_": "lever_no_kd_lr3e-4",
    "short_": "short_no_kd",
    "start_long_": "start_long_no_kd",
    "start_": "start_no_kd",
    "manga_start_": "manga_start_no_kd",
    "manga_": "manga_no_kd",
    "medquad_": "medquad_start_no_kd",
    "ensemble_long_": "ensemble_long_no_kd",
    "ensemble_": "ensemble_no_kd",
    "": "no_kd",
}
GAPS = {  # the student without KD from random weights
    "few_": "few_no_kd",
    "with_few_": "few_no_kd",
    "with_": "short_no_kd",
    "short_": "short_no_kd",
    "lever_": "short_no_kd",
    "start_long_": "no_kd",
    "start_": "short_no_kd",
    "manga_": "manga_no_kd",
    "medquad_": "medquad_no_kd",
    "two_stage": "no_kd",
}
LEVERS = {
    "lever_": "start_output_new_texts",
    "with_few_": "few_start_output_new_texts",
    "with_": "lever_lr3e-4",
}  # judged on validation
