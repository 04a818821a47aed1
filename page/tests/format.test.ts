import assert from "node:assert/strict";
import { test } from "node:test";
import { bytes, digits, duration, marks, moment, oneLine, percent, short, withoutMiddle } from "../src/format.ts";
import { View } from "../src/view.ts";

const plain = (text: string) => text.replaceAll("\u202f", " ");

test("durations have three digits and the unit that fits", () => {
  const pairs: [number, string][] = [
    [0, "0 s"], [1, "1 ns"], [3210, "3.21 µs"], [999_400, "999 µs"], [999_600, "1 ms"], [12.34e9, "12.3 s"], [59.96e9, "1 min 0 s"],
    [125e9, "2 min 5 s"], [7500e9, "2 h 5 min"], [1e15, "11 d 13 h"], [-2.5e6, "-2.5 ms"], [NaN, "–"], [Infinity, "–"],
  ];
  for (const [value, text] of pairs) assert.equal(plain(duration(value)), text);
});

test("numbers are short", () => {
  assert.deepEqual([0, 1, 9.996, 66.94, 999.6, 1234567].map(digits), ["0", "1", "10", "66.9", "1,000", "1,234,567"]);
  assert.deepEqual([950, 9999, 12345, 1.85e6].map(short).map(plain), ["950", "9,999", "12.3 k", "1.85 M"]);
  assert.deepEqual([0, 1023, 1536, 5 << 20].map(bytes).map(plain), ["0 B", "1,023 B", "1.5 KiB", "5 MiB"]);
  assert.deepEqual([0, 0.004, 0.62, 0.999, 1].map(percent).map(plain), ["0 %", "< 1 %", "62 %", "> 99 %", "100 %"]);
});

test("texts are cut at a length, and end in what tells them apart", () => {
  assert.equal(oneLine("a\n b\tc", 9), "a b c");
  assert.equal(oneLine("abcdefghij", 5), "abcd…");
  assert.equal(withoutMiddle("picture 61.gif", 14), "picture 61.gif");
  assert.equal(withoutMiddle("picture 61.gif", 10), "pi… 61.gif");
});

test("neighbouring marks have different texts, at any zoom and any moment", () => {
  for (const from of [0, -5e9, 3.2e9, 7.77e12, 1e15]) {
    for (let span = 20; span < 1e13; span *= 3.7) {
      const { step, moments } = marks(from, from + span, 8);
      assert.ok(moments.length >= 2 && moments.length <= 10, `${from} ${span}: ${moments.length}`);
      const texts = moments.map((at) => moment(at, step));
      assert.equal(new Set(texts).size, texts.length, `${from} ${span}: ${texts}`);
    }
  }
});

test("a view zooms about a pixel and stays within its bounds", () => {
  const view = new View();
  view.width = 1000;
  view.setBounds(0, 1e9);
  view.showAll();
  const before = view.moment(300);
  view.zoom(0.1, 300);
  assert.ok(Math.abs(view.moment(300) - before) < 1);
  view.pan(-1e9);
  assert.ok(view.from >= -1e7 - 1 && view.span > 1e8 - 1);
  view.zoom(1e9);
  assert.ok(view.isAll());
  view.zoom(1e-30);
  assert.ok(view.span >= 20);
});

test("a view goes with the end of a recording that grows", () => {
  const view = new View();
  view.setBounds(0, 100);
  view.showAll();
  view.setBounds(0, 1000);
  view.follow(true);
  assert.ok(view.isAll());
  view.show(900, 1000);
  view.setBounds(0, 2000);
  view.follow(false);
  assert.ok(view.hasEnd() && Math.abs(view.span - 100) < 1e-6);
});
