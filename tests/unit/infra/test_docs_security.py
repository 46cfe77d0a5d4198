"""What the page on security says of each kind of access is shown by tests, sentence by sentence."""

import ast
import re
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from tests.workspaces import ROOT

REFUSED_CHAMPION = ("test_a_champion_whose_files_or_hash_were_changed_is_refused_until_a_rollback",)
USES_KEYS = "pytest.mark.usefixtures('keys')"
KEYS_ASIDE = "Keys change nothing here."
SHOWN = {
    # Who edits tags, aliases and runs in MLflow, and no file; who writes files of versions and decisions, and no tag
    KEYS_ASIDE: ("test_what_keys_do_not_change_is_tested_with_and_without_them",),
    "**Can't** have a version promoted, approved or rolled back to that no recorded decision allowed.": (
        "test_approve_goes_by_the_recorded_decision_whatever_the_tags_say",
        "test_an_earlier_decision_that_allowed_a_version_does_not_count_after_a_later_one",
        "test_rollback_goes_only_to_what_a_recorded_decision_promoted",
        "test_reconcile_finishes_no_attempt_that_someone_wrote_into_the_ledger",
    ),
    "**Can't** have figures decide that were edited in tags or metrics.": (
        "test_a_tag_that_was_edited_is_named_with_what_was_measured",
        "test_a_metric_of_the_logged_model_that_was_edited_is_named",
        "test_a_version_that_was_edited_while_it_awaited_approval_is_not_approved",
    ),
    "**Can't** have `reflux predict` or `load_model` take a champion that was never promoted.": (
        "test_a_champion_that_was_set_by_hand_is_loaded_only_if_it_was_promoted_before_but_mlflow_alone_loads_any",
    ),
    "**Can** put an earlier champion back: by its alias, which `reflux history` and an alert report, or by an entry of "
    "the ledger in another person's name, which nothing reports.": (
        "test_a_champion_that_was_set_by_hand_is_loaded_only_if_it_was_promoted_before_but_mlflow_alone_loads_any",
        "test_a_rule_fires_when_it_should_and_not_before",
        "test_a_rollback_to_an_earlier_champion_can_be_forged_in_any_name",
    ),
    "**Can** hide the last decision on a version, so that a person who approves the version carries out an earlier "
    "one.": ("test_a_later_decision_can_be_hidden_by_the_tags_of_its_entry_so_that_a_person_approves_an_earlier_one",),
    "**Can** have any version refused, also the champion, which `reflux rollback` then replaces.": REFUSED_CHAMPION,
    "**Can** move the alias to any version, which a program that loads it by MLflow alone then takes.": (
        "test_a_champion_that_was_set_by_hand_is_loaded_only_if_it_was_promoted_before_but_mlflow_alone_loads_any",
    ),
    "With accounts, this is who may edit the project's experiment and not its model.": (
        "test_an_account_that_trains_writes_files_of_versions_which_are_then_refused",
        "test_whoever_may_not_promote_moves_no_alias_and_leaves_nothing",
    ),
    "**Can't** have a version loaded, promoted, approved or rolled back to of which a file was changed, added, linked "
    "or removed.": ("test_any_file_that_was_changed_added_or_removed_is_refused_by_every_command_that_loads_or_moves",),
    "**Can't** change a decision that was recorded.": (
        "test_a_decision_that_was_edited_where_it_is_kept_counts_no_more",
    ),
    "**Can** run code in a program that loads a version by MLflow alone and [doesn't check its hash]"
    "(../infra/docs/pages/how-to/champion.md#without-reflux).": (
        "test_code_that_was_put_to_a_champion_runs_where_mlflow_alone_loads_it_and_not_where_its_hash_is_checked",
    ),
    # Who writes both, where no key is set
    "With accounts, this is who has the role `reflux-promotes`, as workers have.": (
        "test_the_workers_account_registers_promotes_and_is_no_administrator",
        "test_only_the_administrator_makes_accounts_and_an_account_that_was_one_is_none_anymore",
    ),
    "**Can** put any file into production, without a decision.": (
        "test_who_writes_files_and_tags_and_holds_the_key_forges_a_promotion_and_with_none_set_anyone_does",
        "test_a_decision_that_was_rewritten_with_its_tags_moves_nothing_where_a_key_is_set_and_does_where_none_is",
    ),
    "**Can** bring code with a version, which runs where the version is smoke-tested and where MLflow loads it.": (
        "test_who_writes_files_and_tags_promotes_what_brings_code_where_no_key_is_set_and_not_where_one_is",
        "test_code_that_was_put_to_a_champion_runs_where_mlflow_alone_loads_it_and_not_where_its_hash_is_checked",
    ),
    "**Can** read by such code, in the smoke test, whatever the user who runs it may read.": (
        "test_code_of_a_version_reads_what_its_user_may",
    ),
    "**Can't** find secrets by it in the environment of the smoke test.": (
        "test_code_of_a_version_finds_no_secret_in_its_environment",
    ),
    "**Can't** reach a network or read the environment of other processes by it where the system lets the smoke test "
    'have namespaces; the decision then says "without a network".': (
        "test_code_of_a_version_reaches_no_network_and_no_other_process_where_namespaces_are_allowed",
        "test_where_the_system_allows_no_namespaces_the_program_runs_all_the_same_and_knows",
        "test_a_sound_version_passes_and_says_how_fast_it_answers",
    ),
    # Who writes both, where keys are set
    "**Can't** have a version promoted, approved, rolled back to or predicted with whose files the key did not sign as "
    "they are.": (
        "test_a_version_with_a_changed_file_is_neither_promoted_nor_approved_nor_rolled_back_to",
        "test_without_a_key_versions_are_unsigned_and_say_so_and_with_one_they_are_refused",
        "test_the_public_key_is_enough_to_predict_and_to_roll_back_and_shows_classes_that_were_swapped",
        "test_who_writes_files_and_tags_promotes_what_brings_code_where_no_key_is_set_and_not_where_one_is",
    ),
    "**Can't** have a decision carried out that the key did not sign.": (
        "test_a_decision_that_was_rewritten_with_its_tags_moves_nothing_where_a_key_is_set_and_does_where_none_is",
        "test_reconcile_finishes_no_attempt_whose_decision_no_key_signed",
    ),
    "**Can't** make a version the champion by what the key signed for another model or version.": (
        "test_a_signed_version_of_another_model_is_no_champion_here",
        "test_a_version_can_be_given_the_signed_files_of_another_one_which_then_is_no_champion",
    ),
    "**Can** have a version that is loaded by its number, not as champion, answer with the signed files of another "
    "one.": ("test_a_version_can_be_given_the_signed_files_of_another_one_which_then_is_no_champion",),
    "**Can** run code in a program that checks the hash of all files and not their signature.": (
        "test_the_pages_line_verifies_a_signature_and_refuses_changed_files_whose_tags_were_changed_with_them",
    ),
    "**Can** do all that a writer of tags alone can.": (
        "test_a_rollback_to_an_earlier_champion_can_be_forged_in_any_name",
        "test_a_later_decision_can_be_hidden_by_the_tags_of_its_entry_so_that_a_person_approves_an_earlier_one",
        "test_a_champion_that_was_set_by_hand_is_loaded_only_if_it_was_promoted_before_but_mlflow_alone_loads_any",
        *REFUSED_CHAMPION,
    ),
    # Who holds a key
    "**Can**, with `REFLUX_SIGNING_KEY` and the right to write files and tags, put any file into production, and no "
    "check finds it.": (
        "test_who_writes_files_and_tags_and_holds_the_key_forges_a_promotion_and_with_none_set_anyone_does",
    ),
    "**Can't** sign or decide with `REFLUX_VERIFY_KEY` alone.": (
        "test_a_decision_that_was_rewritten_with_its_tags_moves_nothing_where_a_key_is_set_and_does_where_none_is",
        "test_a_key_that_cant_be_used_is_refused_in_a_sentence",
    ),
    "**Can't** use a version that the old key signed where another key is set.": (
        "test_added_and_removed_files_a_changed_signature_and_another_key_are_named",
    ),
    # Who has a shell on a worker
    "**Can** do what the worker's account may, in its name: register, promote and roll back; and sign, where the key "
    "is there.": (
        "test_the_workers_account_registers_promotes_and_is_no_administrator",
        "test_an_entry_is_by_the_account_and_says_on_whose_behalf",
        "test_who_writes_files_and_tags_and_holds_the_key_forges_a_promotion_and_with_none_set_anyone_does",
    ),
    "**Can** read and replace what is in DVC's bucket: datasets and stages' results.": (
        "test_artifacts_go_through_mlflow_to_s3_and_users_are_in_postgres",
    ),
    "**Can't** make accounts, or become MLflow's administrator.": (
        "test_only_the_administrator_makes_accounts_and_an_account_that_was_one_is_none_anymore",
        "test_workers_and_runs_are_told_neither_mlflows_administrator_nor_its_key_of_s3",
    ),
    "**Can't** open the bucket of MLflow's artifacts with the worker's key of S3: they come and go through MLflow.": (
        "test_artifacts_go_through_mlflow_to_s3_and_users_are_in_postgres",
    ),
    "**Can't** become root in a container of Compose or Kubernetes, or change its image.": (
        "test_services_have_no_rights_and_write_their_volumes_alone",
        "test_pods_run_unprivileged_within_limits",
        "test_a_run_works_in_its_container_and_what_waits_for_mlflow_outlives_it",
    ),
    "**Can't** get at the credentials that a cloud hands to its machines, on Kubernetes where the network enforces "
    "`network.yaml`.": ("test_each_pod_reaches_what_it_needs_and_nothing_else",),
    # Who hands in the dataset
    "**Can't** have files read outside of its folder, by links or by paths.": (
        "test_a_link_to_a_secret_is_refused_in_each_format",
        "test_a_folder_that_is_a_link_out_is_refused_in_each_format",
        "test_path_that_leaves_the_manifests_folder_is_refused",
        "test_embedded_path_that_leaves_the_folder_is_refused",
    ),
    "**Can't** keep a run waiting or fill its memory: pipes, devices, endless files, and pictures and tables that are "
    "far larger than their files are refused or set aside.": (
        "test_a_named_pipe_is_refused_and_not_waited_for",
        "test_a_named_pipe_and_an_endless_file_of_a_manifest_are_set_aside",
        "test_what_is_no_file_is_never_opened",
        "test_bomb_is_refused_on_its_header",
        "test_millions_of_rows_in_a_small_file_are_refused_before_they_are_read",
        "test_a_large_image_that_all_rows_share_is_read_a_few_rows_at_a_time",
    ),
    "**Can't** have a name run as code or as a formula, in the model card, the report on the data or "
    "`quarantine.csv`.": (
        "test_names_from_data_are_shown_and_never_run",
        "test_names_of_files_are_text_and_rows_link_to_their_page",
        "test_a_name_that_is_a_formula_is_a_text_in_the_list",
    ),
    "**Can't** have an exact copy of a test picture trained on; look-alikes are only named.": (
        "test_an_image_of_several_splits_stays_where_it_is_tested_on",
        "test_look_alikes_of_test_images_are_named_where_they_are_trained_on",
    ),
    "**Can** decide what the model learns: labels are taken at their word, also wrong ones.": (
        "test_labels_are_taken_at_their_word",
    ),
    "**Can** choose the pictures that versions are tested on; a decision says when they are others than the "
    "champion's.": (
        "test_only_what_the_source_lacks_is_carved_out",
        "test_the_champion_is_scored_anew_on_a_new_test_split_and_the_change_is_said",
    ),
    "**Can** have a run refused, by too many damaged pictures or too few sound ones, before anything is trained.": (
        "test_damaged_images_are_tolerated_up_to_their_share",
        "test_too_little_to_learn_from_is_one_sentence_and_leaves_nothing",
    ),
}


def sentences(text: str) -> list[str]:
    """The sentences of a text in Markdown without its headings."""
    tokens = MarkdownIt().enable("table").parse(text)
    blocks = [t.content for last, t in pairwise(tokens) if t.type == "inline" and last.type != "heading_open"]
    return [one for block in blocks for one in re.split(r"(?<=\.) (?=[A-Z*])", " ".join(block.split()))]


def kinds_of_access() -> list[list[str]]:
    """The sentences on each kind of access."""
    page = (ROOT / ".github/SECURITY.md").read_text(encoding="utf-8")
    _, _, section = page.partition("\n## Who can do what\n")
    return [sentences(part) for part in re.split(r"^### .*$", section, flags=re.MULTILINE)[1:]]


def parameters(file: Path) -> list[tuple[str, set[str]]]:
    """The tests of a file, each with its parameters and the fixtures that it uses by a mark."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    marks = [ast.unparse(node.value) for node in body if isinstance(node, ast.Assign)]
    return [
        (
            node.name,
            {argument.arg for argument in node.args.args}
            | {"keys" for mark in (*marks, *map(ast.unparse, node.decorator_list)) if mark == USES_KEYS},
        )
        for node in body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]


@pytest.fixture(scope="module")
def tests() -> list[tuple[str, set[str]]]:
    return [one for file in (ROOT / "tests").rglob("test_*.py") for one in parameters(file)]


def test_each_sentence_on_who_can_do_what_names_tests_that_exist(tests):
    assert {one for access in kinds_of_access() for one in access} == SHOWN.keys()
    assert [sentence for sentence, names in SHOWN.items() if not names] == []
    every = [name for name, _ in tests]
    assert {name: every.count(name) for names in SHOWN.values() for name in names if every.count(name) != 1} == {}


def test_what_keys_do_not_change_is_tested_with_and_without_them(tests):
    aside = [one for access in kinds_of_access() if KEYS_ASIDE in access for one in access]
    named = {name for sentence in aside for name in SHOWN[sentence]}
    decide = {name: uses for name, uses in tests if name in named and "judge" in uses}
    assert len(decide) > 10
    assert [name for name, uses in decide.items() if "keys" not in uses] == []


def test_a_sentence_more_on_the_page_is_found():
    text = "Intro.\n\n### Who\n\nOne. Two, in\ntwo lines.\n\n- **Can't** three.\n- **Can** four: `a.b`; [five](c.md).\n"
    more = ["One.", "Two, in two lines.", "**Can't** three.", "**Can** four: `a.b`; [five](c.md).", "six", "seven"]
    assert sentences(f"{text}\n| six |\n| --- |\n| seven |\n") == ["Intro.", *more]
