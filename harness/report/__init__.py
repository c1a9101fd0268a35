"""What a run looks like to a person: tables in the terminal, and one self-contained HTML page.

    sections.py   what a report says, as data (scores, curves, pictures, timings, provenance, notes)
    compare.py    which of several models is better on a metric, and when the numbers cannot tell
    declared.py   what benchmark.yaml adds to a score: labels, units, published values
    formats.py    numbers, counts and durations as text
    curves.py     training logs read back as curves
    training.py   the logs of several models -> the panels to look at first, and which model is faster
    plots.py      curves -> inline SVG that follows the page's light and dark colours
    images.py     uint8 pictures -> PNG data URIs
    html.py       Report(...).render() -> str, with report.html.j2 and report.css beside it
    run.py        report_for_run(run_dir) -> Path, what `harness report` calls
    table.py      the same scores, and the steps and runs, for the terminal

Nothing is imported here, so that `harness ls` does not wait for a plotting library.
"""
