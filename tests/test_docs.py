"""What is written about the code is true of the code: commands, links, recipes, names."""

import ast
import importlib
import importlib.util
import inspect
import re
import shlex
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from cyclopts import CycloptsError, MissingArgumentError

from openmofi.cli import app
from openmofi.config import TrainSettings

ROOT = Path(__file__).resolve().parents[1]
MARKDOWN = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
RECIPES = sorted(ROOT.glob("recipes/*.yaml"))
DEMO_RECIPES = sorted(ROOT.glob("src/openmofi/demo/recipes/*.yaml"))
SCRIPTS = sorted(ROOT.glob("runs/*.sh"))
PACKAGES = sorted(ROOT.glob("src/openmofi/**/__init__.py"))
PUBLIC = [
    "kb.build_kb",
    "kb.KnowledgeBase",
    "pairs.find_shards",
    "link.Linker",
    "label.label",
    "select.select",
    "model.load_model",
    "model.MofiModel",
    "model.MofiModel.encode_images",
    "model.MofiModel.encode_texts",
    "train.train",
    "train.EntityHead",
    "train.adapt",
    "embed.embed",
    "evaluate.evaluate",
    "evaluate.gpr1200.mean_average_precision",
    "evaluate.revisited.mean_average_precision",
    "search.Index",
    "search.tag",
    "tag.tag",
    "tag.Tagger",
    "serve.make_app",
]
# Stand-ins for the variables of scripts, where a plain 1 would be refused.
VARIABLES = {"SLURM_PROCID": "0", "RULE": "--threshold 0"}


def verbs() -> list[str]:
    found = []
    for name in (name for name in app if not name.startswith("-")):
        nested = [inner for inner in app[name] if not inner.startswith("-")]
        found += [f"{name} {inner}" for inner in nested]
        if not nested or app[name].default_command:
            found.append(name)
    return found


def fences(text: str, language: str) -> str:
    return "\n".join(re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S))


def commands(path: Path) -> list[str]:
    """Returns the command lines of a page, script or recipe that a reader may type as they are."""
    text = path.read_text().replace("\\\n", " ")
    text = fences(text, "sh") if path.suffix == ".md" else text
    lines = re.findall(r"^(?:# *command *| *Example: |srun | *)(openmofi .*)$", text, re.M)
    return [re.sub(r"\$\{?(\w+)\}?", lambda v: VARIABLES.get(v[1], "1"), line) for line in lines]


def mentions(path: Path) -> list[str]:
    """Returns the commands inside sentences; they may lack arguments, but not be wrong."""
    found = re.findall(r"`(openmofi [^`]*)`", path.read_text())
    return [command for command in found if not re.match(r"openmofi [A-Z]", command)]


def parse(command: str) -> None:
    words = shlex.split(command, comments=True)[1:]
    ends = [i for i, word in enumerate(words) if word in ("|", "||", "&&", ";", ">")]
    app.parse_args(words[: ends[0] if ends else None], print_error=False, exit_on_error=False)


def named(paths: list[Path], find) -> list:
    return [
        pytest.param(item, id=f"{p.relative_to(ROOT)}: {item}") for p in paths for item in find(p)
    ]


def written_files() -> list[Path]:
    """Returns the project's text files, without what git ignores."""
    skipped = {line.strip("/") for line in (ROOT / ".gitignore").read_text().split()}
    tops = [p for p in ROOT.iterdir() if p.name not in skipped and p.name != ".git"]
    files = [f for top in tops for f in ([top] if top.is_file() else top.rglob("*"))]
    files = [f for f in files if f.is_file() and not skipped & set(f.parts)]
    return [f for f in files if f.suffix not in (".pyc", ".png", ".jpg", ".npy", ".gz")]


# ---- commands -----------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", verbs())
def test_the_readme_lists_every_verb(verb):
    rows = re.findall(r"^\| `openmofi ([a-z ]+)` \|", (ROOT / "README.md").read_text(), re.M)
    assert verb in rows


def test_the_readme_denies_no_verb_that_exists():
    page = (ROOT / "README.md").read_text()
    lacking = re.search(r"^## What it is not yet\n(.*?)^## ", page, re.M | re.S)[1]
    named = set(re.findall(r"`(?:openmofi )?([a-z]+)", lacking))
    assert named & {verb.split()[0] for verb in verbs()} == set()


def test_the_readme_lists_no_verb_that_does_not_exist():
    rows = re.findall(r"^\| `openmofi ([a-z ]+)` \|", (ROOT / "README.md").read_text(), re.M)
    assert set(rows) <= set(verbs())


@pytest.mark.parametrize(
    "command",
    named(
        [*MARKDOWN, *SCRIPTS, *RECIPES, *sorted((ROOT / "src/openmofi/cli").glob("*.py"))], commands
    ),
)
def test_commands_parse(command):
    parse(command)


@pytest.mark.parametrize("command", named([*MARKDOWN, *SCRIPTS, *RECIPES], mentions))
def test_commands_inside_sentences_use_real_verbs_and_flags(command):
    with suppress(MissingArgumentError):
        parse(command)


@pytest.mark.parametrize(
    "command", ["openmofi lable x", "openmofi select i2e --min-imges 3", "openmofi link --jsn"]
)
def test_wrong_commands_would_be_noticed(command):
    with pytest.raises(CycloptsError):
        parse(command)


def test_every_walk_through_is_seen_by_these_tests():
    assert len(commands(ROOT / "README.md")) > 20
    assert len(commands(ROOT / "runs" / "tiny.sh")) > 10


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: page.name)
def test_make_targets_exist(page):
    makefile = (ROOT / "Makefile").read_text()
    used = re.findall(r"^make (\w+)", fences(page.read_text(), "sh"), re.M)
    used += re.findall(r"`make (\w+)`", page.read_text())
    assert [target for target in used if f"\n{target}:" not in makefile] == []


def test_continuous_integration_calls_the_same_targets():
    local = re.findall(r"^(?:make|\.ci/)\S* ?\w*$", (ROOT / ".ci" / "run").read_text(), re.M)
    hosted = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert re.findall(r"- run: (.*)$", hosted, re.M) == local
    assert "make test" in local


# ---- links and names ----------------------------------------------------------------------------


def links(page: Path) -> list[str]:
    found = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    return [str((page.parent / link).relative_to(ROOT)) for link in found if ":" not in link]


def paths(page: Path) -> list[str]:
    return re.findall(r"`((?:src|docs|recipes|runs|tests|\.ci)/[a-z0-9_./-]+)`", page.read_text())


@pytest.mark.parametrize("link", named(MARKDOWN, links))
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()


def short_names(page: Path) -> list[str]:
    """Returns the files that a page names without their whole path, and does not forbid."""
    found = re.findall(r"`([a-z0-9_/]+\.(?:py|js|json|css))`", page.read_text())
    return [name for name in found if not (ROOT / name).exists() and name != "utils.py"]


@pytest.mark.parametrize("name", named([ROOT / "CONTRIBUTING.md"], short_names))
def test_files_that_contributors_are_sent_to_exist(name):
    places = [*ROOT.glob(f"src/**/{name}"), *ROOT.glob(f"tests/**/{name}")]
    assert places, name


@pytest.mark.parametrize("path", named(MARKDOWN, paths))
def test_files_that_are_named_exist(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: page.name)
def test_columns_reasons_and_settings_that_are_named_exist(page):
    code = "".join(f.read_text() for top in ("src", "tests") for f in ROOT.glob(f"{top}/**/*.py"))
    words = re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+)+)`", page.read_text())
    assert [word for word in words if not re.search(rf"\b{word}\b", code)] == []


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "index.md").read_text()
    pages = [page.name for page in ROOT.glob("docs/*.md") if page.name != "index.md"]
    assert [page for page in pages if f"({page})" not in index] == []


def test_the_python_example_calls_what_exists():
    tree = ast.parse(fences((ROOT / "README.md").read_text(), "python"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    seen = 0
    for call in calls:
        module, *names = ast.unparse(call.func).split(".")
        if module in ("hits", "index", "encoder"):  # objects, not modules
            continue
        function = importlib.import_module(f"openmofi.{module}")
        for name in names:
            function = getattr(function, name)
        arguments = {keyword.arg or "": None for keyword in call.keywords}
        inspect.signature(function).bind(*call.args, **arguments)
        seen += 1
    assert seen >= 8


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_exist(name):
    module, *attributes = name.split(".")
    found = importlib.import_module(f"openmofi.{module}")
    for attribute in attributes:
        found = getattr(found, attribute)
    assert inspect.getdoc(found)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.parent.name)
def test_every_package_says_what_it_is(package):
    assert ast.get_docstring(ast.parse(package.read_text()))


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.parent.name)
def test_exported_names_exist(package):
    parts = package.parent.relative_to(ROOT / "src").parts
    module = importlib.import_module(".".join(parts))
    exported = getattr(module, "__all__", [])
    assert [name for name in exported if not hasattr(module, name)] == []


# ---- the site -----------------------------------------------------------------------------------


def load_hook():
    """Returns docs/outside.py, the hook of the site, which needs no mkdocs until it is called."""
    spec = importlib.util.spec_from_file_location("outside", ROOT / "docs" / "outside.py")
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    return hook


HOOK = load_hook()


def navigation(entry=None) -> list[str]:
    """Returns the pages of the site in the order of mkdocs.yml."""
    if entry is None:
        entry = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    if isinstance(entry, str):
        return [entry]
    within = entry.values() if isinstance(entry, dict) else entry
    return [page for item in within for page in navigation(item)]


def exported(package: Path) -> list[str]:
    """Returns `__all__` of a package, read and not imported."""
    for node in ast.parse(package.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return []


PUBLIC_PACKAGES = [path for path in PACKAGES if exported(path)]


def test_every_page_is_in_the_navigation_once():
    docs = ROOT / "docs"
    pages = [str(path.relative_to(docs)) for path in docs.glob("**/*.md")]
    joining = [there for there in HOOK.OUTSIDE.values() if there.endswith(".md")]
    assert sorted(navigation()) == sorted(pages + joining)


def test_what_the_site_links_to_lies_on_the_site():
    pages = [
        page for page in MARKDOWN if page.name in HOOK.OUTSIDE or page.is_relative_to(ROOT / "docs")
    ]
    targets = {link for page in pages for link in links(page) if not link.startswith("docs/")}
    assert targets - set(HOOK.OUTSIDE) == set()


@pytest.mark.parametrize(
    ("place", "link", "on_the_site"),
    [
        ("labels.md", "log.md#two", "log.md#two"),
        ("labels.md", "../README.md", "readme.md"),
        ("readme.md", "docs/labels.md#one", "labels.md#one"),
        ("readme.md", "docs/flow.svg", "flow.svg"),
        ("readme.md", "LICENSE", "LICENSE.txt"),
        ("reference/kb.md", "../formats.md", "../formats.md"),
        ("reference/kb.md", "../../runs/tiny.sh", "../runs/tiny.sh"),
        ("labels.md", "https://example.org/README.md", "https://example.org/README.md"),
    ],
)
def test_links_of_a_code_host_hold_on_the_site(place, link, on_the_site):
    assert HOOK.for_the_site(f"see [it]({link})", place) == f"see [it]({on_the_site})"


@pytest.mark.parametrize("package", PUBLIC_PACKAGES, ids=lambda path: path.parent.name)
def test_every_public_package_has_a_reference_page(package):
    name = ".".join(package.parent.relative_to(ROOT / "src").parts)
    page = ROOT / "docs" / "reference" / f"{name.removeprefix('openmofi.')}.md"
    shown = re.findall(r"^::: (\S+)$", page.read_text(), re.M)
    assert shown[0] == name
    # griffe takes a name for the module of that name, so such a function is shown by itself.
    hidden = [n for n in exported(package) if (package.parent / f"{n}.py").exists()]
    if name != "openmofi.cli":  # it exports its modules, which are documented by --help
        assert [
            n for n in hidden if not any(f"{s}.".startswith(f"{name}.{n}.") for s in shown)
        ] == []


def test_every_folder_and_file_is_on_the_map_of_the_house():
    page = (ROOT / "docs" / "index.md").read_text().split("## Map of the house")[1]
    source = ROOT / "src" / "openmofi"
    folders = [f"{path.parent.name}/" for path in PACKAGES if path.parent.parent == source]
    files = [path.name for path in source.glob("*.py") if not path.name.startswith("_")]
    assert [name for name in folders + files if f"`{name}`" not in page] == []


# ---- recipes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [*RECIPES, *DEMO_RECIPES], ids=lambda path: path.stem)
def test_recipes_load(recipe):
    from openmofi.train.recipe import read_recipe

    assert isinstance(read_recipe(recipe), TrainSettings)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_go_by_name(recipe, tmp_path, monkeypatch):
    from openmofi.train.recipe import read_recipe

    monkeypatch.chdir(tmp_path)
    assert read_recipe(recipe.stem) == read_recipe(recipe)


def test_an_unknown_recipe_is_answered_with_those_there_are():
    from openmofi.errors import InputError
    from openmofi.train.recipe import read_recipe

    with pytest.raises(InputError, match=r"no recipe 'finetun'.*clip.*finetune.*multitask"):
        read_recipe("finetun")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_list_only_what_differs_from_the_defaults(recipe):
    from openmofi.train.recipe import read_recipe

    default, settings = asdict(TrainSettings()), asdict(read_recipe(recipe))
    for name, value in yaml.safe_load(recipe.read_text()).items():
        if isinstance(value, dict):
            assert [key for key in value if settings[name][key] == default[name][key]] == []
        else:
            assert settings[name] != default[name]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_begin_with_command_hardware_hours_and_scores(recipe):
    head = re.match(r"(#.*\n)+", recipe.read_text()).group()
    assert re.findall(r"^# (command|hardware|hours|scores) ", head, re.M) == [
        "command",
        "hardware",
        "hours",
        "scores",
    ]
    assert f"openmofi train {recipe.stem} " in head


# ---- what must not be written -------------------------------------------------------------------

# In pieces, so that this file does not hold them.
UNWANTED = [
    "/".join(("", "work", "")),
    "/".join(("", "home", "")),
    ".".join(("pypi", "org")),
    ".".join(("files", "pythonhosted", "org")),
    ".".join(("registry", "npmjs", "org")),
]


@pytest.mark.parametrize("unwanted", UNWANTED)
def test_no_file_names_a_registry_or_a_path_of_one_machine(unwanted):
    files = written_files()
    assert len(files) > 50
    holding = [f for f in files if unwanted.encode() in f.read_bytes()]
    assert [str(f.relative_to(ROOT)) for f in holding] == []


def test_no_result_is_still_to_be_filled_in():
    waiting = [path.name for path in MARKDOWN if "<!-- RESULTS" in path.read_text()]
    assert waiting == []
