// Builds the page as one file, or with `--tests` the unit tests; `--check` compares the page with the file that
// is there.
import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
export const PAGE = here("../crates/concurrent-futures/src/page/timeline.html");

async function bundle(entry, options) {
  const result = await build({
    entryPoints: [here(entry)],
    bundle: true,
    write: false,
    target: "es2022",
    charset: "utf8",
    legalComments: "none",
    logLevel: "warning",
    absWorkingDir: here("."),
    ...options,
  });
  return result.outputFiles[0].text;
}

/** Repeats the block of the dark theme for systems that are dark: one rule cannot be within a query and outside. */
const dark = {
  name: "dark",
  setup: ({ onLoad }) =>
    onLoad({ filter: /\/style\.css$/ }, async ({ path }) => {
      const rule = /^:root\[data-theme="dark"\] (\{[^}]*\})$/m;
      const repeat = (whole, block) =>
        `${whole}\n@media (prefers-color-scheme: dark) { :root:not([data-theme="light"]) ${block} }`;
      const style = await readFile(path, "utf8");
      if (!rule.test(style)) throw new Error(`${path} has no block for the dark theme`);
      return { contents: style.replace(rule, repeat), loader: "css" };
    }),
};

/** Returns the page. Its content security policy allows its own script and style, and no other address. */
async function page() {
  const html = await readFile(here("src/index.html"), "utf8");
  // Its terms want to be in each copy.
  const licence = (await readFile(here("node_modules/uplot/LICENSE"), "utf8")).trim();
  const style = (await bundle("src/style.css", { minify: true, plugins: [dark] })).trim();
  const script = (await bundle("src/main.ts", { minify: true, format: "iife" })).trim().replaceAll("</script", "<\\/script");
  const hash = (text) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`;
  const policy = `default-src 'none'; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; script-src ${hash(script)}; style-src ${hash(style)}`;
  return html
    .replace("@LICENCE@", () => licence.replaceAll("--", "—"))
    .replace("@POLICY@", () => policy)
    .replace("@STYLE@", () => style)
    .replace("@SCRIPT@", () => script);
}

async function tests() {
  await rm(here("build/tests"), { recursive: true, force: true });
  await mkdir(here("build/tests"), { recursive: true });
  for (const name of await readdir(here("tests"))) {
    if (!name.endsWith(".test.ts")) continue;
    const text = await bundle(`tests/${name}`, { format: "esm", platform: "node", sourcemap: "inline" });
    await writeFile(here(`build/tests/${name.replace(/ts$/, "mjs")}`), text);
  }
}

if (process.argv.includes("--tests")) {
  await tests();
} else if (process.argv.includes("--check")) {
  if ((await page()) !== (await readFile(PAGE, "utf8"))) {
    console.error("timeline.html is not what the sources in page/ build to: run `make page`");
    process.exitCode = 1;
  }
} else {
  const text = await page();
  await writeFile(PAGE, text);
  console.log(`${PAGE}: ${Math.round(text.length / 1024)} KiB`);
}
