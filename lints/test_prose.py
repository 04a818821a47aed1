"""Tests of the lint for prose: `python3 -m unittest discover -s lints`."""

import unittest

import prose


def numbers(source: str, suffix: str) -> list[int]:
    """Returns the numbers of the lines with a finding."""
    return [finding.number for finding in prose.findings(source, suffix)]


class Rust(unittest.TestCase):
    """Tests of comments of Rust."""

    def test_documentation_and_comments_are_read(self) -> None:
        source = "//! What this is.\n\n/// Whoever calls.\nfn f() {} // Has it called.\n"
        self.assertEqual(numbers(source, ".rs"), [1, 3, 4])

    def test_strings_and_characters_are_no_comments(self) -> None:
        source = 'let a = "// What"; let b = \'"\'; // fine\nlet c = r#"" // What"#;\n'
        self.assertEqual(numbers(source, ".rs"), [])

    def test_a_sentence_may_begin_within_a_line(self) -> None:
        self.assertEqual(numbers("/// Returns `x`. Who calls it\n/// knows.\n", ".rs"), [1])

    def test_a_sentence_may_go_on_in_the_next_line(self) -> None:
        self.assertEqual(numbers("/// Returns the thread\n/// who waits.\n", ".rs"), [])

    def test_a_sentence_may_begin_with_a_line(self) -> None:
        self.assertEqual(numbers("/// Returns.\n/// So many are left.\n", ".rs"), [2])

    def test_a_lower_case_beginning_of_a_comment_counts(self) -> None:
        self.assertEqual(numbers("// SAFETY: who has the lock\n", ".rs"), [1])

    def test_fenced_code_is_left_out(self) -> None:
        self.assertEqual(numbers("/// Runs.\n/// ```\n/// What\n/// ```\n", ".rs"), [])

    def test_a_sentence_begins_behind_a_heading(self) -> None:
        self.assertEqual(numbers("/// Makes it.\n/// # Errors\n/// What it raises.\n", ".rs"), [3])

    def test_no_sentence_begins_with_a_question_or_without_an_actor(self) -> None:
        for begin in [
            "Whom it wakes",
            "How it works",
            "That which waits",
            "Everything that runs",
            "All that runs",
            "Others run",
            "Others' calls run",
        ]:
            with self.subTest(begin):
                self.assertEqual(numbers(f"// Runs. {begin}.\n", ".rs"), [1])
        self.assertEqual(
            numbers("// However. How to run. All threads. Other threads.\n", ".rs"), []
        )

    def test_no_sentence_has_an_actor_without_a_name(self) -> None:
        for word in ["nobody", "somebody", "someone", "anyone", "everybody", "no one"]:
            with self.subTest(word):
                self.assertEqual(numbers(f"// The lock that {word} has.\n", ".rs"), [1])
        self.assertEqual(
            numbers('// Words: `nobody`, "nobody", and no one-way street.\n', ".rs"), []
        )

    def test_a_summary_begins_with_a_noun_or_a_third_person_verb(self) -> None:
        for summary in [
            "Return the value.",
            "Do nothing.",
            "It waits.",
            "There is none.",
            "Its end.",
        ]:
            with self.subTest(summary):
                self.assertEqual(numbers(f"/// {summary}\n", ".rs"), [1])
        for fine in ["Start methods.", "Returns the value.", "Call of a task.", "Items of a span."]:
            with self.subTest(fine):
                self.assertEqual(numbers(f"/// {fine}\n", ".rs"), [])

    def test_only_the_first_sentence_of_documentation_is_a_summary(self) -> None:
        self.assertEqual(numbers("/// Waits. It ends.\n///\n/// There is more.\n", ".rs"), [])
        self.assertEqual(numbers("// It waits. Return the value.\n", ".rs"), [])

    def test_a_long_sentence_is_found_at_its_first_line_with_its_length(self) -> None:
        long = " ".join(["word"] * prose.LONGEST)
        self.assertEqual(numbers(f"/// Short.\n/// {long}\n/// more.\n", ".rs"), [2])
        self.assertEqual(numbers(f"/// Short.\n/// {long}.\n/// More.\n", ".rs"), [])
        advice = [found.advice for found in prose.findings(f"// {long} more.\n", ".rs")]
        self.assertEqual(advice, [f"{prose.LONGEST + 1} words: one idea a sentence"])

    def test_code_and_the_address_of_a_link_are_not_counted(self) -> None:
        long = " ".join(["word"] * (prose.LONGEST - 2))
        self.assertEqual(numbers(f"/// {long} `a b c` [d](https://e.f/g h).\n", ".rs"), [])


class Python(unittest.TestCase):
    """Tests of docstrings and comments of Python."""

    def test_docstrings_and_comments_are_read(self) -> None:
        source = '"""What this is."""\nx = 1  # Who cares.\ny = "What"\n'
        self.assertEqual(numbers(source, ".py"), [1, 2])

    def test_the_line_in_a_docstring_is_found(self) -> None:
        source = 'def f():\n    """Return.\n\n    So many are left.\n    """\n'
        self.assertEqual(numbers(source, ".pyi"), [4])

    def test_a_docstring_may_use_the_infinitive(self) -> None:
        self.assertEqual(numbers('def f():\n    """Return the value."""\n', ".py"), [])
        self.assertEqual(numbers('def f():\n    """It returns."""\n', ".py"), [2])

    def test_comments_behind_code_are_sentences_of_their_own(self) -> None:
        words = " ".join(["word"] * (prose.LONGEST - 1))
        self.assertEqual(numbers(f"a = 1  # {words}\nb = 2  # {words}\n", ".py"), [])
        self.assertEqual(numbers(f"# {words}\n# {words}\n", ".py"), [1])

    def test_indented_code_in_a_docstring_is_left_out(self) -> None:
        self.assertEqual(numbers('"""Runs.\n\n    What = 1\n\nWhat.\n"""\n', ".py"), [5])


class Names(unittest.TestCase):
    """Tests of names of tests."""

    def test_examples_in_a_docstring_are_left_out(self) -> None:
        source = '"""Text.\n\nExamples\n--------\n>>> call()\nWhat it says\n\nWhat follows.\n"""\n'
        self.assertEqual(numbers(source, ".py"), [8])

    def test_names_of_tests_follow_the_rules(self) -> None:
        self.assertEqual(numbers("#[test]\nfn who_waits_is_woken() {}\n", ".rs"), [2])
        self.assertEqual(numbers("def " + "test_what_is_done() -> None: ...\n", ".py"), [1])

    def test_other_names_are_free(self) -> None:
        self.assertEqual(numbers("fn whose_work() {}\nfn what_is() {}\n", ".rs"), [])


class Markdown(unittest.TestCase):
    """Tests of Markdown."""

    def test_headings_items_and_cells_begin_sentences(self) -> None:
        source = "## What is\n\n- **Who waits** waits.\n\n| a | what |\n"
        self.assertEqual(numbers(source, ".md"), [1, 3, 5])

    def test_items_cells_and_headings_end_sentences(self) -> None:
        words = " ".join(["word"] * (prose.LONGEST - 1))
        source = f"# {words}\n{words}\n- {words}\n- {words}\n\n| {words} | {words} |\n"
        self.assertEqual(numbers(source, ".md"), [])

    def test_bold_words_with_a_full_stop_end_a_sentence(self) -> None:
        words = " ".join(["word"] * (prose.LONGEST - 1))
        self.assertEqual(numbers(f"**{words}.** {words.capitalize()}.\n", ".md"), [])

    def test_a_colon_begins_a_sentence_before_a_capital_only(self) -> None:
        self.assertEqual(numbers("Note: What. And note: what.\n", ".md"), [1])


if __name__ == "__main__":
    unittest.main()
