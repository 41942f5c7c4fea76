"use strict";
// The browser of examples. Everything from the data becomes a text node; no string is ever read as markup.
(function () {
  const PAGE = 20;
  const HEAVIEST = 3;
  const SAME_REASONS = 0.5;
  const SHORT = 40;

  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const radios = Array.from(document.querySelectorAll('input[name="show"]'));
  const picker = byId("student");
  let shown = PAGE;

  const rows = data.examples.map((example, place) => {
    const texts = example.texts.map((pieces) =>
      pieces.map((piece) => (typeof piece === "string" ? piece : piece[0])).join(""));
    const labels = [example.gold, example.teacher.label].filter((label) => label !== null);
    return { example, place, haystack: texts.concat(labels).join("\n").toLocaleLowerCase() };
  });

  const student = () => (picker ? Number(picker.value) : 0);
  const answerOf = (row) => row.example.students[student()];

  const KINDS = {
    all: () => true,
    label: (answer) => answer.same === false,
    alike: (answer) => answer.same !== false,
    reasons: (answer) => answer.same !== false && answer.agreement !== null && answer.agreement < SAME_REASONS,
    same: (answer) => answer.same !== false && answer.agreement !== null && answer.agreement >= SAME_REASONS,
  };

  const ORDERS = {
    disagreement: [(row) => answerOf(row).disagreement, -1],
    confident: [(row) => row.example.teacher.confidence, -1],
    unsure: [(row) => row.example.teacher.confidence, 1],
    long: [(row) => row.example.length, -1],
    short: [(row) => row.example.length, 1],
    index: [(row) => row.example.index, 1],
  };

  function sorted(list) {
    const [value, direction] = ORDERS[byId("order").value];
    return list.slice().sort((a, b) => {
      const left = value(a);
      const right = value(b);
      if (left === null || right === null) return (left === null) - (right === null) || a.place - b.place;
      return direction * (left - right) || a.place - b.place;
    });
  }

  function element(name, className, ...children) {
    const made = document.createElement(name);
    if (className) made.className = className;
    made.append(...children); // strings become text nodes
    return made;
  }

  const percent = (share) => Math.round(100 * share) + "\u00a0%";

  function shorten(word) {
    const letters = Array.from(word); // whole code points: half an emoji is no letter
    return letters.length > SHORT ? letters.slice(0, SHORT - 1).join("") + "…" : word;
  }

  function wordsOf(example, shareOf) {
    return example.texts.flat().filter((piece) => typeof piece !== "string" && shareOf(piece) !== null);
  }

  function heaviest(example, shareOf) {
    return wordsOf(example, shareOf)
      .filter((word) => shareOf(word) > 0)
      .sort((a, b) => shareOf(b) - shareOf(a))
      .slice(0, HEAVIEST);
  }

  function summary(role, name, answer, top, shareOf) {
    const line = element("p", "summary", element("b", "", role), name ? element("bdi", "muted", " " + name) : "", ": ");
    if (answer.label !== null) line.append(element("bdi", "answer", answer.label));
    if (answer.prediction !== null) line.append(element("span", "answer", answer.prediction.toFixed(3)));
    if (answer.confidence !== null) line.append(", " + percent(answer.confidence));
    top.forEach((word, place) => {
      line.append(place ? ", " : "; rests most on ", element("bdi", "", shorten(word[0])), " " + percent(shareOf(word)));
    });
    return line;
  }

  // Words are no <bdi>: two Hebrew words in an English line would change places, and dir="auto" would not see them.
  function shaded(pieces, top, most, shareOf) {
    const line = element("p", "text");
    line.dir = "auto";
    pieces.forEach((piece, place) => {
      if (typeof piece === "string") {
        const unread = place === pieces.length - 1 && piece.trim() !== "";
        line.append(unread ? element("span", "unread", piece) : piece);
        if (unread) line.lastChild.title = "not read by the models";
        return;
      }
      const share = shareOf(piece);
      const word = element("span", top.includes(piece) ? "word heavy" : "word", piece[0]);
      if (share !== null) {
        word.title = percent(share);
        word.style.setProperty("--weight", most > 0 ? Math.max(0, share / most).toFixed(3) : "0");
      }
      line.append(word);
    });
    return line;
  }

  function reading(role, name, example, answer, shareOf) {
    const top = heaviest(example, shareOf);
    const most = top.length ? shareOf(top[0]) : 0;
    const block = element("div", "reading " + role, summary(role, name, answer, top, shareOf));
    example.texts.forEach((pieces) => block.append(shaded(pieces, top, most, shareOf)));
    return block;
  }

  function changed(pieces, kind) {
    const line = element("p", "text");
    line.dir = "auto";
    pieces.forEach((piece) => line.append(typeof piece === "string" ? piece : element(kind, "", piece[0])));
    return line;
  }

  function flip(example, number) {
    const found = example.flip;
    if (!found || found.students[number] === undefined) return "";
    const count = found.changes.length;
    const label = found.students[number];
    const stays = label !== found.teacher && label === example.students[number].label;
    const line = element("p", "summary", element("b", "", "change"),
      (count === 1 ? " this word" : " these " + count + " words") + " and the teacher predicts ",
      element("bdi", "answer", found.teacher), "; the student " + (stays ? "still " : "") + "predicts ",
      element("bdi", "answer", label));
    const block = element("div", "reading flip", line);
    found.before.forEach((pieces) => block.append(changed(pieces, "del")));
    found.after.forEach((pieces) => block.append(changed(pieces, "ins")));
    return block;
  }

  function badge(answer) {
    if (KINDS.label(answer)) return element("span", "badge strong", "other label");
    if (KINDS.reasons(answer)) {
      return element("span", "badge", answer.same === null ? "other reasons" : "same label, other reasons");
    }
    if (KINDS.same(answer)) {
      return element("span", "badge quiet", answer.same === null ? "same reasons" : "same label, same reasons");
    }
    return "";
  }

  function facts(example, answer) {
    const line = element("span", "facts");
    if (example.gold !== null) line.append("gold: ", element("bdi", "", example.gold));
    [["agreement", answer.agreement], ["disagreement", answer.disagreement]].forEach(([name, value]) => {
      if (value !== null) line.append((line.hasChildNodes() ? " · " : "") + name + " " + value.toFixed(2));
    });
    return line;
  }

  function card(row) {
    const example = row.example;
    const answer = answerOf(row);
    const number = student();
    const head = element("div", "head", element("h3", "", "Example " + example.index), badge(answer),
      facts(example, answer));
    const item = element("li", "example", head,
      reading("teacher", "", example, example.teacher, (word) => word[1]),
      reading("student", picker ? data.students[number] : "", example, answer, (word) => word[2][number] ?? null),
      flip(example, number));
    item.tabIndex = -1; // "Show more" sends the focus to what it brought
    return item;
  }

  function chosen() {
    const wanted = byId("search").value.trim().toLocaleLowerCase();
    const found = rows.filter((row) =>
      row.haystack.includes(wanted) || (answerOf(row).label || "").toLocaleLowerCase().includes(wanted));
    radios.forEach((radio) => {
      const hits = found.filter((row) => KINDS[radio.value](answerOf(row))).length;
      radio.parentElement.querySelector(".hits").textContent = "(" + hits + ")";
    });
    const kind = KINDS[radios.find((radio) => radio.checked).value];
    return sorted(found.filter((row) => kind(answerOf(row))));
  }

  function draw() {
    const list = chosen();
    const count = Math.min(shown, list.length);
    byId("list").replaceChildren(...list.slice(0, count).map(card));
    byId("count").textContent = list.length
      ? "Showing " + count + " of " + list.length + (list.length === 1 ? " example" : " examples")
      : "No example fits.";
    byId("more-line").hidden = count === list.length;
    byId("more").textContent = "Show " + Math.min(PAGE, list.length - count) + " more";
  }

  function restart() {
    shown = PAGE;
    draw();
  }

  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  byId("controls").addEventListener("input", restart);
  byId("more").addEventListener("click", () => {
    const first = shown;
    shown += PAGE;
    draw();
    byId("list").children[first].focus();
  });
  byId("browser").hidden = false;
  draw();
})();
