import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { luminance, OWN_COLOURS, rgb } from "../src/theme.ts";

const style = readFileSync("src/style.css", "utf8");
const blocks = [...style.matchAll(/\{([^{}]*--f0:[^{}]*)\}/g)].map(([, body]) =>
  Object.fromEntries([...body.matchAll(/--(\w+):\s*(#[0-9a-f]{6})/g)].map(([, name, colour]) => [name, colour])),
);

type Rgb = [number, number, number];

/** Vision with one kind of cone missing (Machado, Oliveira and Fernandes, 2009), on linear light. */
const VISION: Record<string, number[][]> = {
  full: [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
  protanopia: [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
  deuteranopia: [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
  tritanopia: [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
};

function linear(colour: Rgb): Rgb {
  return colour.map((part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4)) as Rgb;
}

/** Returns a colour in Oklab, in which distances are those that people see. */
function oklab([r, g, b]: Rgb): Rgb {
  const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  return [
    0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s,
    1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s,
    0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s,
  ];
}

function distance(a: string, b: string, vision: number[][]): number {
  const [x, y] = [a, b].map((colour) => {
    const light = linear(rgb(colour));
    return oklab(vision.map((row) => Math.max(0, row[0] * light[0] + row[1] * light[1] + row[2] * light[2])) as Rgb);
  });
  return Math.hypot(x[0] - y[0], x[1] - y[1], x[2] - y[2]);
}

test("both themes have the same names", () => {
  assert.equal(blocks.length, 2);
  assert.deepEqual(Object.keys(blocks[0]).sort(), Object.keys(blocks[1]).sort());
});

for (const [theme, colours] of [["light", blocks[0]], ["dark", blocks[1]]] as const) {
  for (const [name, vision] of Object.entries(VISION)) {
    test(`the colours of functions differ for ${name} vision in the ${theme} theme`, () => {
      const close: string[] = [];
      for (let a = 0; a <= OWN_COLOURS; a++) {
        for (let b = a + 1; b <= OWN_COLOURS; b++) {
          const found = distance(colours[`f${a}`], colours[`f${b}`], vision);
          if (found < 0.06) close.push(`f${a} f${b} ${found.toFixed(3)}`);
        }
      }
      assert.deepEqual(close, []);
    });
  }

  test(`text is readable in the ${theme} theme`, () => {
    const contrast = (a: string, b: string) => {
      const [x, y] = [luminance(rgb(a)), luminance(rgb(b))].sort((x, y) => y - x);
      return (x + 0.05) / (y + 0.05);
    };
    for (const ground of ["panel", "page"]) {
      for (const text of ["ink", "muted", "error"]) {
        assert.ok(contrast(colours[text], colours[ground]) >= 4.5, `${text} on ${ground}: ${contrast(colours[text], colours[ground])}`);
      }
    }
  });

  test(`runs and marks stand out from the lane in the ${theme} theme`, () => {
    for (const name of [...Array.from({ length: OWN_COLOURS + 1 }, (_, i) => `f${i}`), "error", "stopped"]) {
      assert.ok(distance(colours[name], colours.lane, VISION.full) > 0.12, name);
    }
  });
}
