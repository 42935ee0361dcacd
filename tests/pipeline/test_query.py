from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from pipeline.errors import Verdict, decide
from pipeline.part import METADATA_SCHEMA
from pipeline.query import QueryError, Where

TABLE = pa.table(
    {
        "key": ["a", "b", "c"],
        "tags": [["car"], [], ["dog", "car"]],
        "width": [10, 20, 30],
        "captured_at": pa.array([datetime(2025, 12, 31), datetime(2026, 2, 1), None], pa.timestamp("us")),
        "metadata": ["{}", '{"weather": "rain"}', '{"weather": "5x"}'],
    }
)


@pytest.mark.parametrize(
    ("sql", "rows", "columns"),
    [
        ("list_contains(tags, 'car')", [0, 2], ["tags"]),
        ("'car' = ANY(tags)", [0, 2], ["tags"]),
        ("captured_at > '2026-01-01'", [1], ["captured_at"]),
        ("WIDTH >= 20 AND Key <> 'b'", [2], ["key", "width"]),
        ("archive.width = 10", [0], ["width"]),
        ("json_extract_string(metadata, '$.weather') = 'rain'", [1], ["metadata"]),
        ("len(list_filter(tags, lambda tag: tag = 'dog')) = 1", [2], ["tags"]),
        ("captured_at IS NULL -- unknown time", [2], ["captured_at"]),
        ("true", [0, 1, 2], []),
        (None, [0, 1, 2], []),
    ],
)
def test_rows_that_pass_and_columns_that_are_read(sql: str | None, rows: list[int], columns: list[str]) -> None:
    where = Where(sql, METADATA_SCHEMA)
    assert where.rows(TABLE) == rows
    assert where.columns == columns


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
def test_the_zone_of_the_machine_chooses_no_rows(zone: str) -> None:
    """DuckDB looks at the machine once in a process, so that another zone needs another process."""
    program = (
        "import pyarrow as pa; from datetime import datetime; from pipeline.query import Where\n"
        "table = pa.table({'t': pa.array([datetime(2026, 1, 31, hour) for hour in range(24)], pa.timestamp('us'))})\n"
        "where = Where(\"t > TIMESTAMPTZ '2026-01-31 22:00:00+02'\", table.schema)\n"
        "assert where.rows(table) == [21, 22, 23], where.rows(table)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, "TZ": zone})


def test_a_clause_cannot_change_the_settings() -> None:
    with pytest.raises(duckdb.Error, match="locked"):
        Where(None, METADATA_SCHEMA)._connection.execute("SET TimeZone = 'Asia/Tokyo'")


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("", "parser error"),
        ("widht > 3", '"widht" not found'),
        ("length(bitstream) > 3", '"bitstream" not found'),
        ("width", "not true or false"),
        ("width > 1, width < 5", "not true or false"),
        ("sum(width) > 3", "aggregates"),
        ("captured_at > '2026-13-01'", "out of range"),
        ("1 = 1; DROP TABLE archive", "error"),
        ("1 = 1) UNION (SELECT 1", "one expression"),
        ("true ORDER BY key", "error"),
        ("width > (SELECT avg(width) FROM archive)", "reads no tables"),
        ("key = ?", "parameter"),
        ("__row = 1", "__row"),
        ("Archive::VARCHAR LIKE '%rain%'", "by their names"),
        ("struct_extract(archive, 'camera') = 'c'", "by their names"),
        ("#3 = 'shard'", "by their names"),
        ("NOT " * 900 + "true", "nested too deeply"),
    ],
)
def test_a_clause_that_cannot_be_used(sql: str, reason: str) -> None:
    with pytest.raises(QueryError) as caught:
        Where(sql, METADATA_SCHEMA)
    text = str(caught.value)
    assert reason.lower() in text.lower()
    assert sql in text
    assert "captured_at, camera, latitude" in text
    assert decide(caught.value) is Verdict.ABORT


@pytest.mark.parametrize(
    "attack",
    [
        "(SELECT count(*) FROM read_csv('{file}')) > 0",
        "EXISTS (FROM read_text('{file}'))",
        "EXISTS (FROM '{file}')",
        "true; COPY (SELECT 1) TO '{new}'",
        "true) TO '{new}'; SELECT (true",
        "true; ATTACH '{new}' AS other",
        "true; SET enable_external_access = true",
        "true; INSTALL httpfs",
        "(SELECT content FROM read_blob('{file}')) IS NOT NULL",
        "EXISTS (FROM glob('/*'))",
        "getenv('HOME') IS NOT NULL",
        "EXISTS (FROM TABLE)",
    ],
)
def test_files_settings_and_variables_are_out_of_reach(tmp_path: Path, attack: str) -> None:
    secret, new = tmp_path / "secret.csv", tmp_path / "new.csv"
    secret.write_text("a,b\n1,2\n")
    with pytest.raises(QueryError):
        Where(attack.format(file=secret, new=new), METADATA_SCHEMA)
    assert sorted(tmp_path.iterdir()) == [secret]


def test_even_a_clause_that_got_past_the_parser_reads_no_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    where = Where("true", METADATA_SCHEMA)
    where._sql = f"(SELECT count(*) FROM read_csv('{secret}')) > 0"
    with pytest.raises(QueryError, match="disabled by configuration"):
        where.rows(TABLE)


def test_a_value_that_does_not_fit_is_the_clause_s_fault() -> None:
    where = Where("CAST(json_extract_string(metadata, '$.weather') AS INT) > 3", METADATA_SCHEMA)
    with pytest.raises(QueryError, match="Could not convert"):
        where.rows(TABLE)
