"""SQL over an archive's metadata: one WHERE clause, checked once, applied by DuckDB to one part at a time.

The clause sees a table of metadata columns in memory and nothing else: DuckDB may not touch files, the network, its
own configuration or Python variables, and the clause has to be a single expression.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from threading import Lock
from typing import Any

import duckdb
import pyarrow as pa

from pipeline.errors import JobError

ROW_NUMBER = "__row"
ALIAS = "archive"
"""What clauses may call the table."""

_SANDBOX: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
    "threads": "1",
}


class QueryError(JobError, ValueError):
    """A WHERE clause that cannot be used: the message shows the clause, the reason and the known columns."""

    def __init__(self, sql: str, reason: str, columns: list[str]) -> None:
        self.sql, self.reason, self.columns = sql, reason, columns
        super().__init__(sql, reason, columns)

    def __str__(self) -> str:
        return f"cannot use WHERE {self.sql}\n  {self.reason}\n  columns: {', '.join(self.columns)}"


class Where:
    """A WHERE clause over the columns of `schema`; `sql=None` lets every row pass.

    `columns` are those that the clause reads. Raises QueryError at once where the clause does not parse, names an
    unknown column, is nested too deeply, or holds more than one expression without subqueries. Not picklable: send the
    SQL.
    """

    def __init__(self, sql: str | None, schema: pa.Schema) -> None:
        self._sql = sql
        self._names = list(schema.names)
        self._connection = _sandbox()
        self._turn = Lock()
        self.columns: list[str] = []
        if sql is not None:
            try:
                self.columns = self._referenced(sql)
            except RecursionError as error:
                raise self._refusal("the clause is nested too deeply") from error
            self._check(sql, schema)

    @property
    def passes_all(self) -> bool:
        """Whether there is no clause."""
        return self._sql is None

    def rows(self, table: pa.Table) -> list[int]:
        """Numbers of the rows of `table` that pass, ascending. `table` needs the clause's columns only.

        Threads take turns. Raises QueryError where the clause fails on a value, such as text that should be cast to a
        number.
        """
        if self._sql is None:
            return list(range(table.num_rows))
        numbered = table.append_column(ROW_NUMBER, pa.array(range(table.num_rows), pa.int64()))
        try:
            with self._turn:  # a connection of DuckDB is not for several threads at once
                passing = self._relation(numbered).filter(self._sql).project(ROW_NUMBER).fetchall()
        except duckdb.Error as error:
            raise self._refusal(str(error)) from error
        return sorted(number for (number,) in passing)

    def _relation(self, table: pa.Table) -> duckdb.DuckDBPyRelation:
        return self._connection.from_arrow(table).set_alias(ALIAS)

    def _check(self, sql: str, schema: pa.Schema) -> None:
        """Tries the clause on a row of nulls: every error that does not depend on values shows here."""
        nulls = pa.table({field.name: pa.nulls(1, field.type) for field in schema})
        try:
            kinds = [str(kind) for kind in self._relation(nulls).project(sql).types]
        except duckdb.Error as error:
            raise self._refusal(str(error)) from error
        if kinds != ["BOOLEAN"]:
            raise self._refusal(f"the clause gives {', '.join(kinds)}, not true or false")
        self.rows(nulls)

    def _referenced(self, sql: str) -> list[str]:
        """The columns that the parsed clause names; all of them where it has a `*`."""
        statement = f"SELECT 1 FROM {ALIAS} WHERE (\n{sql}\n)"
        ((text,),) = self._connection.execute("SELECT json_serialize_sql(?)", [statement]).fetchall()
        tree = json.loads(text)
        if tree["error"]:
            raise self._refusal(f"{tree['error_type']} error: {tree['error_message']}")
        query = tree["statements"][0]["node"]
        clauses = list(_nodes(query.get("where_clause")))
        if query["type"] != "SELECT_NODE" or any(_is_table(node) for node in clauses):
            raise self._refusal("a WHERE clause is one expression over the columns below; it reads no tables")
        if any(_depends_on_the_table(node) for node in clauses):
            raise self._refusal("a clause names the columns that it needs, by their names")
        if any(node.get("class") == "STAR" for node in clauses):
            return self._names
        used = {str(name).lower() for node in clauses for name in node.get("column_names", ())}
        if ROW_NUMBER in used:
            raise self._refusal(f"unknown column {ROW_NUMBER}")
        return [name for name in self._names if name.lower() in used]

    def _refusal(self, reason: str) -> QueryError:
        return QueryError(str(self._sql), reason.split("\n\n")[0], self._names)


def _sandbox() -> duckdb.DuckDBPyConnection:
    """A database in memory whose answers do not depend on the machine: times with a zone are compared in UTC."""
    connection = duckdb.connect(":memory:", config=_SANDBOX)
    connection.execute("SET TimeZone = 'UTC'")  # not among the settings that `connect` takes, so the lock comes last
    connection.execute("SET lock_configuration = true")
    return connection


def _is_table(node: dict[str, Any]) -> bool:
    """Whether a node of the parsed clause is a subquery over something; `'car' = ANY(tags)` is one over nothing."""
    source = node.get("from_table")
    return source is not None and source.get("type") != "EMPTY"


def _depends_on_the_table(node: dict[str, Any]) -> bool:
    """Whether a node stands for whole rows or for a column's place: tables have more or fewer columns as is needed."""
    names = [str(name).lower() for name in node.get("column_names", ())]
    return node.get("class") == "POSITIONAL_REFERENCE" or names == [ALIAS]


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object of a JSON tree."""
    if isinstance(tree, dict):
        yield tree
    children: Any = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    for child in children:
        yield from _nodes(child)
