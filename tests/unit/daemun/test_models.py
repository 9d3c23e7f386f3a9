"""`daemun models`: what it prints, and what it says when it cannot answer."""

import json
from pathlib import Path

import pytest
import yaml

from daemun import cli
from serving.spec import known_models, read_spec


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> "Run":
    monkeypatch.chdir(tmp_path)
    return Run(monkeypatch, capsys)


class Run:
    """Calls the entry point as the shell would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setenv("COLUMNS", "200")
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["models", *arguments])
        out, err = self._capsys.readouterr()
        return int(ended.value.code or 0), out, err


def test_list_has_a_line_for_every_model(run: Run) -> None:
    code, out, _ = run("list")
    assert code == 0
    assert all(model in out for model in known_models())
    assert "236B, 23B active" in out


def test_list_says_which_models_are_not_served_and_why(run: Run) -> None:
    models = {one["id"]: one for one in json.loads(run("list", "--json")[1])}
    assert models["exaone-4.0-32b"]["served"]
    assert "0.28.0" in models["hyperclovax-seed-vision-3b"]["reason"]


@pytest.mark.parametrize("model", known_models())
def test_show_tells_of_every_model_in_both_languages(run: Run, model: str) -> None:
    code, out, _ = run("show", model)
    assert code == 0
    assert "licence" in out
    assert "금지" in out


def test_show_gives_the_source_of_a_figure_and_the_reason_for_a_gap(run: Run) -> None:
    out = run("show", "kanana-2-30b-a3b")[1]
    assert "github.com/kakao/kanana-2 README" in next(line for line in out.splitlines() if line.startswith("layers"))
    assert "unknown" in next(line for line in out.splitlines() if line.startswith("hidden_size"))


def test_show_for_programs_is_the_whole_entry(run: Run) -> None:
    entry = json.loads(run("show", "k-exaone-236b-a23b", "--json")[1])
    assert entry["shape"]["experts"]["routed"] == 128
    assert entry["parsers"]["tools"] == "hermes"


def test_plan_that_fits_shows_its_arithmetic(run: Run) -> None:
    code, out, _ = run("plan", "exaone-4.0-32b", "--gpu", "RTX4090:4")
    assert code == 0
    assert "tensor parallel 4" in out
    assert "32,000,000,000 parameters × 2 bytes, over 4 GPU = 14.9 GiB" in out
    assert "3 calls of 131,072 at once" in out
    assert "decode         at most 56 tokens/s for one call" in out


def test_makers_own_advice_for_the_largest_agrees_with_the_plan(run: Run) -> None:
    """LG serves 256K tokens on 4 H200."""
    answer = json.loads(run("plan", "k-exaone-236b-a23b", "--gpu", "H200:4", "--json")[1])
    assert answer["fits"]
    assert answer["replica"]["tensor_parallel"] == 4
    assert answer["context_tokens"] == 262144


def test_plan_that_does_not_fit_says_what_would_and_fails(run: Run) -> None:
    code, out, _ = run("plan", "exaone-4.0-32b", "--gpu", "RTX4090")
    assert code == 1
    assert "does not fit on 1 × RTX4090 in bf16: the weights and workspace take 60.0 GiB" in out
    assert "would do       --gpu RTX4090:4" in out


def test_plan_names_the_answers_that_a_gap_makes_impossible(run: Run) -> None:
    out = run("plan", "kanana-2-30b-a3b", "--gpu", "H100")[1]
    assert "unanswered     The cache" in out
    assert "latent.kv_rank is unknown" in out


def test_plan_of_a_model_that_is_not_served_says_so(run: Run) -> None:
    assert "does not serve it" in run("plan", "hyperclovax-seed-vision-3b", "--gpu", "H100")[1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("show", "exaone-4.0-32"), "There is no model 'exaone-4.0-32' in the catalogue; did you mean exaone-4.0-32b?"),
        (("plan", "ax-k1", "--gpu", "B300:8"), "did you mean B200?"),
        (("plan", "ax-k1", "--gpu", "B200:0"), "write for example RTX4090:4."),
        (("plan", "ax-k1", "--gpu", "B200:8", "--quant", "fp4"), "There is no format 'fp4' of weights"),
        (("plan", "ax-k1", "--gpu", "B200:8", "--context", "200000"), "has a context of 131,072 tokens; 200,000 are more."),
        (("plan", "kanana-1.5-8b", "--gpu", "H100", "--quant", "int4"), "cannot be weighed: tied_embeddings is unknown"),
    ],
)
def test_question_that_cannot_be_answered_is_one_sentence(run: Run, arguments: tuple[str, ...], sentence: str) -> None:
    code, out, err = run(*arguments)
    assert code == 1
    assert out == ""
    assert sentence in err
    assert err.count("\n") == 1


def test_tables_of_the_document_are_those_of_the_catalogue(run: Run) -> None:
    """`daemun models list --markdown` prints them anew."""
    document = (Path(__file__).parents[3] / "docs" / "catalog.md").read_text(encoding="utf-8")
    tables = run("list", "--markdown")[1].strip().split("\n\n")
    assert len(tables) == 2
    for table in tables:
        assert table in document


def test_own_catalogue_is_listed_too_and_a_broken_entry_named(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    entry = read_spec("daemun-demo").model_dump(mode="json", exclude_unset=True) | {"id": "own-model"}
    (tmp_path / "own-model.yaml").write_text(yaml.safe_dump(entry, allow_unicode=True))
    (tmp_path / "broken.yaml").write_text("id: [")
    monkeypatch.setenv("DAEMUN_SERVING__CATALOG_DIR", str(tmp_path))
    code, out, err = run("list")
    assert code == 1
    assert "own-model" in out
    assert "daemun-demo" in out
    assert err.startswith("daemun: broken.yaml in the catalogue is not YAML")
    assert err.count("\n") == 1
    assert run("show", "own-model")[0] == 0
