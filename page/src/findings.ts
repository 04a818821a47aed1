/** The list of findings above the picture. */

import type { Finding } from "./summary.ts";
import { counted } from "./format.ts";
import { element } from "./card.ts";

/** Findings that are shown at first. */
const FIRST = 3;

const SAID = { problem: "Problem", advice: "Advice", fact: "Fact" };

export function showFindings(container: HTMLElement, findings: Finding[], onChoose: (finding: Finding) => void): void {
  const isOpen = container.dataset.open === "true";
  const list = document.createElement("ul");
  for (const finding of isOpen ? findings : findings.slice(0, FIRST)) {
    const item = element("li", finding.level);
    const hasPlace = finding.row !== undefined || finding.span !== undefined;
    const text = element(hasPlace ? "button" : "span", "");
    text.append(element("span", "said", `${SAID[finding.level]}: `));
    for (const part of finding.parts) {
      if (typeof part === "string") text.append(part);
      else text.append(element("code", "", part.code));
    }
    if (hasPlace) {
      (text as HTMLButtonElement).type = "button";
      text.title = "Show it in the timeline";
      text.addEventListener("click", () => onChoose(finding));
    }
    item.append(text);
    list.append(item);
  }
  container.replaceChildren(list);
  if (findings.length <= FIRST) return;
  const more = element("button", "more", isOpen ? "Fewer" : `${counted(findings.length - FIRST, "more finding")}`) as HTMLButtonElement;
  more.type = "button";
  more.setAttribute("aria-expanded", String(isOpen));
  more.addEventListener("click", () => {
    container.dataset.open = String(!isOpen);
    showFindings(container, findings, onChoose);
    container.querySelector<HTMLElement>(".more")?.focus();
  });
  container.append(more);
}
