"""The command line: one subcommand per step, built from it. No logic stands here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vesalius.cli_sharing import receive, share
from vesalius.command import CohortFolder, Json, Quiet, Seed, run

app = typer.Typer(
    name="vesalius",
    help="From a folder of scans to a private, honest study. Research use only, not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
def ingest(
    source: Annotated[list[Path], typer.Argument(help="Files, folders, zip archives or DICOMDIRs.")],
    into: Annotated[Path, typer.Option(help="Folder of the cohort; made where there is none.")],
    patient: Annotated[str | None, typer.Option(help="Column of --table that names the patient.")] = None,
    case: Annotated[str | None, typer.Option(help="Column of --table that joins files.")] = None,
    table: Annotated[Path | None, typer.Option(help="CSV that says which files belong together.")] = None,
    key: Annotated[str | None, typer.Option(help="Column of --table that names the files.")] = None,
    patient_from: Annotated[str | None, typer.Option(help="Regular expression; its group is the patient.")] = None,
    roles: Annotated[Path | None, typer.Option(help="TOML of role rules for this cohort.")] = None,
    profile: Annotated[Path | None, typer.Option(help="TOML that tightens or relaxes de-identification.")] = None,
    pixels: Annotated[str | None, typer.Option(help="Text in pixels: keep, clean (default) or strict.")] = None,
    secondary: Annotated[bool, typer.Option("--secondary", help="Let secondary captures in, cleaned.")] = False,
    faces: Annotated[str | None, typer.Option(help="Faces in MR and CT: keep (default) or remove.")] = None,
    encrypt: Annotated[bool, typer.Option("--encrypt", help="Encrypt images, labels and cache at rest.")] = False,
    readmit: Annotated[list[str] | None, typer.Option(help="A withdrawn patient who may come in again.")] = None,
    workers: Annotated[int, typer.Option(help="Processes side by side; 0: one per core.", min=0)] = 0,
    what_if: Annotated[bool, typer.Option("--what-if", help="Tell what would happen; write nothing.")] = False,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Bring scans through the door into a de-identified cohort."""
    from vesalius.steps.ingest import ingest as step
    from vesalius.steps.ingest import preview

    if what_if:
        run(
            lambda progress: preview(
                source, into=into, profile=profile, pixels=pixels, secondary=secondary, progress=progress
            ),
            as_json=as_json, quiet=quiet,
        )  # fmt: skip
    run(
        lambda progress: step(
            source, into=into, patient=patient, case=case, table=table, key=key, patient_from=patient_from,
            roles=roles, profile=profile, pixels=pixels, secondary=secondary, faces=faces, encrypt=encrypt,
            readmit=readmit or (), workers=workers, seed=seed,
            progress=progress,
        ),
        as_json=as_json, quiet=quiet,
    )  # fmt: skip


@app.command()
def label(
    cohort: CohortFolder,
    masks: Annotated[Path | None, typer.Option(help="Folder of masks called like their images.")] = None,
    names: Annotated[str | None, typer.Option(help="What the values mean: 1=anterior,2=posterior.")] = None,
    boxes: Annotated[Path | None, typer.Option(help="Points or boxes: COCO, VOC, YOLO or CSV.")] = None,
    folders: Annotated[Path | None, typer.Option(help="Ingested folder whose folders are classes.")] = None,
    attributes: Annotated[str | None, typer.Option(help="DICOM attributes: ViewPosition,Manufacturer.")] = None,
    table: Annotated[Path | None, typer.Option(help="CSV of covariates, or the Info.txt of MIAS.")] = None,
    key: Annotated[str | None, typer.Option(help="Column of --table that names the files.")] = None,
    patient: Annotated[str | None, typer.Option(help="Column that names patients; never stored.")] = None,
    ignore: Annotated[int | None, typer.Option(help="Mask value left out of loss and scores.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace masks that are there already.")] = False,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Join masks and tables to the cases."""
    from vesalius.steps.label import label as step

    run(
        lambda progress: step(
            cohort, masks=masks, names=parse_names(names), boxes=boxes, folders=folders,
            attributes=words_of(attributes), table=table, key=key, patient=patient, ignore=ignore,
            replace=replace, seed=seed, progress=progress,
        ),
        as_json=as_json, quiet=quiet,
    )  # fmt: skip


@app.command()
def split(
    cohort: CohortFolder,
    column: Annotated[str | None, typer.Option(help="Covariate with the words train and test.")] = None,
    from_file: Annotated[Path | None, typer.Option("--from", help="nnU-Net's splits_final.json.")] = None,
    fold: Annotated[int, typer.Option(help="Entry of splits_final.json that is measured on.")] = 0,
    test_share: Annotated[float, typer.Option(help="Share of patients to measure on.", min=0.01, max=0.9)] = 0.2,
    folds: Annotated[int, typer.Option(help="Folds of the training part.", min=2)] = 5,
    redraw: Annotated[bool, typer.Option("--redraw", help="Replace a split that is there already.")] = False,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw or fix which patients are learned from and which are measured on."""
    from vesalius.steps.split import split as step

    run(
        lambda progress: step(
            cohort, column=column, from_file=from_file, fold=fold, test_share=test_share, folds=folds,
            redraw=redraw, seed=seed, progress=progress,
        ),
        as_json=as_json, quiet=quiet,
    )  # fmt: skip


@app.command()
def fit(
    cohort: CohortFolder,
    task: Annotated[str, typer.Argument(help="segmentation, classification, detection or clustering")] = "segmentation",
    target: Annotated[str | None, typer.Option(help="What is asked: a covariate or the name of a finding.")] = None,
    ordinal: Annotated[bool, typer.Option("--ordinal", help="The target's classes are ordered numbers.")] = False,
    minutes: Annotated[float, typer.Option(help="Budget of the command, the rival apart.", min=0.1)] = 15.0,
    to: Annotated[Path | None, typer.Option(help="Folder of the model.")] = None,
    inputs: Annotated[str | None, typer.Option(help="Roles of the images to learn from: T1,FLAIR.")] = None,
    folds: Annotated[int, typer.Option(help="Networks of a cross-validated ensemble.", min=1)] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    plan: Annotated[Path | None, typer.Option(help="card.json whose plan is used again.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda.")] = None,
    rival: Annotated[bool, typer.Option(help="Fit the hand-designed rival too.")] = True,
    weights: Annotated[Path | None, typer.Option(help="safetensors file of a pretrained backbone, or none.")] = None,
    weights_licence: Annotated[str, typer.Option(help="Licence of these weights, for the card.")] = "",
    hide_marks: Annotated[bool, typer.Option("--hide-marks", help="Hide callipers, text and scales.")] = False,
    licence: Annotated[str, typer.Option(help="Licence of the data, for the card.")] = "",
    attribution: Annotated[str, typer.Option(help="Attribution of the data, for the card.")] = "",
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Learn a model within a budget, beside its hand-designed rival."""
    from vesalius.steps.fit import fit as step

    roles = words_of(inputs) or None
    run(
        lambda progress: step(
            cohort, task, target=target, ordinal=ordinal, minutes=minutes, to=to, inputs=roles, folds=folds,
            resume=resume, plan=plan, device=device, rival=rival, weights=weights, weights_licence=weights_licence,
            hide_marks=hide_marks, licence=licence, attribution=attribution, seed=seed, progress=progress,
        ),
        as_json=as_json, quiet=quiet,
    )  # fmt: skip


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="Folder of a model, or the name of a shipped one.")],
    on: Annotated[Path, typer.Option(help="Folder of the cohort to measure on.")],
    to: Annotated[Path | None, typer.Option(help="Folder of the report.")] = None,
    rival: Annotated[bool, typer.Option(help="Measure the hand-designed rival too.")] = True,
    prevalence: Annotated[float | None, typer.Option(help="Share of the site's cases that have it.")] = None,
    reading_seconds: Annotated[float | None, typer.Option(help="Reading time of a case at the site.")] = None,
    open_report: Annotated[bool, typer.Option("--open", help="Open the report in the browser.")] = False,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a model and its rival on patients that it has not seen."""
    from vesalius.steps.evaluate import evaluate as step

    run(
        lambda progress: step(
            model, on=on, to=to, rival=rival, prevalence=prevalence, reading_seconds=reading_seconds,
            open_report=open_report, seed=seed, progress=progress
        ),
        as_json=as_json, quiet=quiet,
    )  # fmt: skip


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="Folder of a model, or the name of a shipped one.")],
    inputs: Annotated[list[Path], typer.Argument(metavar="SCAN...", help="Files, folders and DICOM series.")],
    to: Annotated[Path, typer.Option(help="Folder for what is written.")],
    table: Annotated[Path | None, typer.Option(help="CSV that says which files belong together.")] = None,
    patient: Annotated[str | None, typer.Option(help="Column of --table that names the patient.")] = None,
    case: Annotated[str | None, typer.Option(help="Column of --table that joins files into one case.")] = None,
    key: Annotated[str | None, typer.Option(help="Column of --table that names the files.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that exists.")] = False,
    threads: Annotated[int | None, typer.Option(help="CPU threads.", min=1)] = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run a model on new scans."""
    from vesalius.steps.predict import predict as step

    run(
        lambda progress: step(
            model, inputs, to=to, table=table, patient=patient, case=case, key=key, force=force, threads=threads,
            seed=seed, progress=progress,
        ),
        as_json=as_json, quiet=quiet,
    )  # fmt: skip


@app.command()
def show(
    cohort: CohortFolder,
    sources: Annotated[Path | None, typer.Option(help="Identified files to match, for who has the key.")] = None,
    sheet: Annotated[bool, typer.Option(help="Draw the contact sheet.")] = True,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Tell what is in a cohort and draw its contact sheet."""
    from vesalius.steps.show import show as step

    run(
        lambda progress: step(cohort, sources=sources, sheet=sheet, seed=seed, progress=progress),
        as_json=as_json, quiet=quiet,
    )  # fmt: skip


@app.command()
def export(
    cohort: CohortFolder,
    layout: Annotated[str, typer.Argument(help="nnunet, monai or bids.")],
    to: Annotated[Path, typer.Option(help="A new folder.")],
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a cohort in the layout of another program."""
    from vesalius.steps.export import export as step

    run(
        lambda progress: step(cohort, layout, to=to, seed=seed, progress=progress) and None,
        as_json=as_json,
        quiet=quiet,
    )


@app.command(name="privacy-check")
def privacy_check(
    patients: Annotated[int, typer.Option(help="Invented patients to plant.", min=1)] = 9,
    profile: Annotated[Path | None, typer.Option(help="TOML of the site whose profile is checked.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Plant identifiers, run the door, and score what became of them."""
    from vesalius.steps.privacy_check import privacy_check as step

    run(
        lambda progress: step(patients=patients, profile=profile, seed=seed, progress=progress),
        as_json=as_json, quiet=quiet,
    )  # fmt: skip


@app.command()
def audit(
    action: Annotated[str, typer.Argument(help="verify")],
    cohort: CohortFolder,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Verify the signed record of what was done with a cohort."""
    from vesalius.steps.audit import audit as step

    run(lambda progress: step(cohort, action, seed=seed, progress=progress), as_json=as_json, quiet=quiet)


@app.command()
def forget(
    cohort: CohortFolder,
    patient: Annotated[str, typer.Argument(help="The hospital's patient identifier, or the pseudonym.")],
    models: Annotated[list[Path] | None, typer.Option(help="Further folders to search for models.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Remove a withdrawn patient, and name what was made with the patient."""
    from vesalius.steps.forget import forget as step

    run(
        lambda progress: step(cohort, patient, models=models or (), seed=seed, progress=progress),
        as_json=as_json, quiet=quiet,
    )  # fmt: skip


@app.command()
def vault(
    action: Annotated[str, typer.Argument(help="init, find, rotate or export")],
    pseudonym: Annotated[str | None, typer.Argument(help="For find.")] = None,
    to: Annotated[Path | None, typer.Option(help="For export: a CSV file.")] = None,
    key_file: Annotated[Path | None, typer.Option(help="Opens the vault instead of a passphrase.")] = None,
    new_key_file: Annotated[Path | None, typer.Option(help="For rotate.")] = None,
    new_passphrase: Annotated[
        str | None, typer.Option(envvar="VESALIUS_NEW_PASSPHRASE", help="For rotate; better given by this variable.")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Keep the pseudonym key encrypted, and turn a pseudonym back."""
    from vesalius.steps.vault import vault as step

    run(
        lambda progress: step(
            action, pseudonym, to=to, key_file=key_file, new_key_file=new_key_file, new_passphrase=new_passphrase,
            seed=seed, progress=progress,
        ),
        as_json=as_json, quiet=quiet,
    )  # fmt: skip


app.command()(share)
app.command()(receive)


@app.command()
def demo(
    to: Annotated[Path, typer.Option(help="Folder for everything that the demo makes.")] = Path("demo"),
    minutes: Annotated[float, typer.Option(help="Budget of fitting.", min=0.1)] = 2.0,
    shipped: Annotated[bool, typer.Option("--shipped", help="Outline the hippocampi of the MNI brain.")] = False,
    open_report: Annotated[bool, typer.Option("--open/--no-open", help="Open the report.")] = True,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run the whole chain on built-in data."""
    from vesalius.steps.demo import demo as step

    run(
        lambda progress: step(
            to, minutes=minutes, shipped=shipped, open_report=open_report, seed=seed, progress=progress
        ),
        as_json=as_json, quiet=quiet,
    )  # fmt: skip


def words_of(text: str | None) -> list[str]:
    """`T1,FLAIR` as a list."""
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def parse_names(text: str | None) -> dict[int, str] | None:
    """`1=anterior,2=posterior` as a mapping.

    Raises:
        typer.BadParameter: it has another form.
    """
    if text is None:
        return None
    names: dict[int, str] = {}
    for part in text.split(","):
        value, equals, name = part.partition("=")
        if not equals or not value.strip().isdigit() or not name.strip():
            raise typer.BadParameter("write names as 1=anterior,2=posterior")
        names[int(value)] = name.strip()
    return names


def main() -> None:
    """Entry point of the `vesalius` command."""
    app()
