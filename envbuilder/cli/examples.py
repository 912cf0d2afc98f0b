"""What `--help` shows as examples of each command; a test holds them to what the commands take."""

from __future__ import annotations

from collections.abc import Mapping

EXAMPLES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "init": (
        ("envbuilder init", "here; a pyproject.toml keeps what it has"),
        ("envbuilder init benchmarks", "in a folder of its own"),
    ),
    "new": (
        ("envbuilder new my-vlm --stage inference", "in packages/my-vlm"),
        ("envbuilder new my-vlm --stage inference --git https://git.example.org/my-vlm.git", ""),
    ),
    "add": (
        ("envbuilder add ocr-crnn --git https://git.example.org/ocr-crnn.git --tag v0.1.0", ""),
        ("envbuilder add --pypi my-vlm==1.4.4 --stage inference --entry my_vlm:MyVlm", ""),
        ("envbuilder add my-vlm --path packages/my-vlm", "a checkout, for dev"),
    ),
    "lock": (
        ("envbuilder lock", "what is not locked yet, or changed"),
        ("envbuilder lock --check", "only ask; for CI"),
        ("envbuilder lock ocr-crnn --upgrade", "the newest versions that fit"),
        ("envbuilder lock --upgrade-package numpy", ""),
    ),
    "check": (
        ("envbuilder check", "before a release, and in CI"),
        ("envbuilder check --core 0.3.0", "what fits a core that is to come?"),
        ("envbuilder check ocr-crnn --all-tags", ""),
    ),
    "outdated": (
        ("envbuilder outdated", "tags and releases"),
        ("envbuilder outdated ocr-crnn --all", "and what lock --upgrade would change"),
    ),
    "diff": (
        ("envbuilder diff", "since the last commit"),
        ("envbuilder diff dev prod", "two profiles"),
        ("envbuilder diff HEAD~3 HEAD", "two commits"),
        ("envbuilder diff run:latest prod", "a run and today's locks"),
    ),
    "why": (("envbuilder why ocr-crnn numpy", ""),),
    "sbom": (("envbuilder sbom --output bills --merged", "CycloneDX 1.5"),),
    "audit": (("envbuilder audit", ""),),
    "build": (
        ("envbuilder build", "all plugins"),
        ("envbuilder build ocr-crnn --torch cpu", ""),
        ("envbuilder build --offline", "from what is at hand"),
    ),
    "status": (
        ("envbuilder status", ""),
        ("envbuilder status --differences", "what plugins lock in different versions"),
    ),
    "path": (("$(envbuilder path ocr-crnn)/bin/python -V", ""),),
    "exec": (("envbuilder exec ocr-crnn -- python -V", ""),),
    "bundle": (("envbuilder bundle create offline.bundle", "here; then, on the other machine, restore"),),
    "bundle create": (
        ("envbuilder bundle create offline.bundle", ""),
        ("envbuilder bundle create small.bundle ocr-crnn", "for one plugin"),
    ),
    "bundle restore": (("envbuilder bundle restore offline.bundle && envbuilder build --offline", ""),),
    "dev": (("envbuilder dev on ocr-crnn", "then: status, off"),),
    "dev on": (
        ("envbuilder dev on ocr-crnn", "at the pinned tag, in packages/ocr-crnn"),
        ("envbuilder dev on ocr-crnn --branch --path packages/crnn", "at the default branch's tip"),
    ),
    "dev off": (("envbuilder dev off ocr-crnn", ""),),
    "dev status": (("envbuilder dev status --fetch", "after a look at the remotes"),),
    "test": (
        ("envbuilder test", "every checkout"),
        ("envbuilder test --profile prod ocr-crnn", "the pinned tag"),
        ("envbuilder test --integration ocr-crnn --junit report.xml", ""),
    ),
    "release": (
        ("envbuilder release ocr-crnn --bump minor --dry-run", "what would be done"),
        ("envbuilder release ocr-crnn --version 0.2.0", "asks before it pushes"),
        ("envbuilder release --all --bump patch --yes", "what changed since its tag"),
    ),
    "matrix": (
        ("envbuilder matrix", "all that can be tested"),
        ("envbuilder matrix --format github --changed-since origin/main", ""),
        ("envbuilder matrix --format gitlab --profile prod > cells.yml", ""),
    ),
    "run": (
        ("envbuilder run", "the workspace's default run"),
        ("envbuilder run profiles/runs/demo.yaml", ""),
        ("RUN_MODE=dev envbuilder run profiles/runs/demo.yaml", "with the checkouts"),
    ),
    "plan": (
        ("envbuilder plan profiles/runs/demo.yaml", ""),
        ("envbuilder plan --why", "what would be done anew, and why"),
    ),
    "resume": (
        ("envbuilder resume", "the latest run"),
        ("envbuilder resume 53ec4b --retry-failed", "by the end of its id"),
    ),
    "runs": (("envbuilder runs list", ""), ("envbuilder runs show", "the latest")),
    "runs list": (("envbuilder runs list --format json", ""),),
    "runs show": (
        ("envbuilder runs show", "the latest"),
        ("envbuilder runs show --export csv", "answers as tables"),
    ),
    "runs diff": (("envbuilder runs diff 53ec4b latest", ""),),
    "verify": (
        ("envbuilder verify", "sizes, times, modes"),
        ("envbuilder verify --full", "every byte"),
        ("envbuilder verify --repair", ""),
    ),
    "generations": (("envbuilder generations", ""),),
    "rollback": (("envbuilder rollback", "to the one before"),),
    "gc": (("envbuilder gc", ""),),
    "doctor": (("envbuilder doctor", ""), ("envbuilder doctor --offline", "asks no remote and no index")),
    "completion": (
        ('eval "$(envbuilder completion bash)"', "in ~/.bashrc"),
        ('eval "$(envbuilder completion zsh)"', "in ~/.zshrc, after compinit"),
        ("envbuilder completion fish > ~/.config/fish/completions/envbuilder.fish", ""),
    ),
}
