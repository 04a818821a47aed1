"""Tests of the map of files: `python3 -m unittest discover -s lints`."""

import importlib
import unittest

files = importlib.import_module("map")


class Map(unittest.TestCase):
    """Tests of the lines of the map."""

    def test_the_first_sentence_may_go_over_lines(self) -> None:
        source = "//! Runs [`Task`]s in\n//! order. Slowly.\n//!\n//! More.\n"
        self.assertEqual(files.summary(source), "Runs `Task`s in order")

    def test_a_file_without_documentation_has_no_summary(self) -> None:
        self.assertEqual(files.summary("fn f() {}\n"), "")

    def test_only_code_counts_as_unsafe(self) -> None:
        self.assertTrue(files.has_unsafe("unsafe { f() }"))
        self.assertFalse(files.has_unsafe("#![forbid(unsafe_code)] // unsafe\n"))
        self.assertFalse(files.has_unsafe('let a = "unsafe";'))


if __name__ == "__main__":
    unittest.main()
