// The query language: text ⇄ syntax tree, the same as obs_assets/search/language.py.
//
// The page needs the tree to change a query by a click: a filter is a term that is added to the tree, and
// the tree is printed again. Text is never pasted together. A test compares both parsers on many queries.
//
// A tree is one of
//   {kind: "text", text}                      a word or a phrase
//   {kind: "compare", field, operator, value} operator: = > >= < <=
//   {kind: "prefix", field, text}
//   {kind: "exists", field}
//   {kind: "not", term}
//   {kind: "and", terms}                      no terms: every event
//   {kind: "or", terms}

const OPERATORS = [">=", "<=", ">", "<"];
const WORDS_OF_LOGIC = ["AND", "OR", "NOT", "TO"];
const MAX_DEPTH = 50;

// Python's blanks; JavaScript's \s is another set.
const BLANK = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const PIECE = `("(?:[^"\\\\]|\\\\[^])*")|(")|([()[\\]:])|([^${BLANK}()[\\]":]+)`;
const WORD = new RegExp(`^[^${BLANK}()[\\]":]+$`, "u");
const FIELD = new RegExp(`^[^${BLANK}()[\\]":*<>=-][^${BLANK}()[\\]":*<>=]*$`, "u");

/** A query that cannot be read: `position` in UTF-16 units from 0, `expected` in words. */
export class QueryError extends Error {
  constructor(message, position, expected) {
    super(`${message}: expected ${expected}`);
    this.position = position;
    this.expected = expected;
  }
}

/** The pieces of a text: {kind, text, start, end}; the last one has the kind "end". */
export function tokensOf(text) {
  const tokens = [];
  for (const piece of text.matchAll(new RegExp(PIECE, "gu"))) {
    const [whole, phrase, quote, sign, word] = piece;
    const start = piece.index;
    const end = start + whole.length;
    if (quote) throw new QueryError("a quote is not closed", start, "a second quote");
    if (phrase) tokens.push({ kind: "phrase", text: unescaped(phrase.slice(1, -1)), start, end });
    if (sign) tokens.push({ kind: sign, text: sign, start, end });
    if (word) tokens.push(...wordTokens(tokens.at(-1), word, start, end));
  }
  tokens.push({ kind: "end", text: "", start: text.length, end: text.length });
  return tokens;
}

function wordTokens(previous, word, start, end) {
  // A dash inside a word is a plain character; before a word it is a NOT.
  const mayBeTurned = !previous || previous.end < start || previous.kind === "(";
  const dashes = mayBeTurned ? word.length - word.replace(/^-+/, "").length : 0;
  const tokens = [];
  for (let place = start; place < start + dashes; place += 1) {
    tokens.push({ kind: "-", text: "-", start: place, end: place + 1 });
  }
  if (dashes < word.length) {
    tokens.push({ kind: "word", text: word.slice(dashes), start: start + dashes, end });
  }
  return tokens;
}

function unescaped(text) {
  return text.replace(/\\([^])/gu, "$1");
}

/** The tree of a query. Throws a QueryError. */
export function parse(text) {
  const parser = new Parser(tokensOf(text));
  if (parser.token.kind === "end") return allOf([]);
  const query = parser.alternatives(() => parser.term());
  parser.take("end", "a term, OR or the end of the query");
  return query;
}

class Parser {
  constructor(tokens) {
    this.tokens = tokens;
    this.next = 0;
    this.depth = 0;
  }

  get token() {
    return this.tokens[this.next];
  }

  step() {
    const token = this.token;
    this.next += 1;
    return token;
  }

  take(kind, expected) {
    if (this.token.kind !== kind) throw new QueryError(found(this.token), this.token.start, expected);
    if (kind !== "end") this.next += 1;
  }

  alternatives(term) {
    const terms = [this.together(term)];
    while (this.isWord("OR")) {
      this.next += 1;
      terms.push(this.together(term));
    }
    return anyOf(terms);
  }

  together(term) {
    const terms = [this.turned(term)];
    while (!(["end", ")", "]"].includes(this.token.kind) || this.isWord("OR"))) {
      if (this.isWord("AND")) this.next += 1;
      terms.push(this.turned(term));
    }
    return allOf(terms);
  }

  turned(term) {
    if (!(this.isWord("NOT") || this.token.kind === "-")) return term();
    this.descend();
    this.next += 1;
    const inner = this.turned(term);
    this.depth -= 1;
    return negated(inner);
  }

  term() {
    if (this.token.kind === "(") return this.group(() => this.term());
    if (!["word", "phrase"].includes(this.token.kind) || this.isLogic()) {
      throw new QueryError(found(this.token), this.token.start, "a term");
    }
    const token = this.step();
    if (this.token.kind === ":" && this.token.start === token.end) return this.ofField(token);
    if (token.kind === "word" && token.text === "*") return allOf([]);
    return { kind: "text", text: token.text };
  }

  ofField(name) {
    if (name.kind === "word" && !FIELD.test(name.text)) {
      const expected = 'a name, or a name in quotes: "my field":value';
      throw new QueryError(`'${name.text}' is no name of a field`, name.start, expected);
    }
    this.next += 1;
    return this.value(name.text);
  }

  value(field) {
    if (this.token.kind === "(") return this.group(() => this.value(field));
    if (this.token.kind === "[") return this.range(field);
    if (this.token.kind === "phrase") return equal(field, this.step().text);
    if (this.token.kind !== "word" || this.isLogic()) {
      const expected = `a value of '${field}', for example *`;
      throw new QueryError(found(this.token), this.token.start, expected);
    }
    return this.writtenValue(field);
  }

  writtenValue(field) {
    const token = this.step();
    for (const operator of OPERATORS) {
      if (token.text.startsWith(operator)) {
        return { kind: "compare", field, operator, value: this.bound(token, operator) };
      }
    }
    const text = this.withColons(token.text, token.end);
    if (text === "*") return { kind: "exists", field };
    if (text.endsWith("*") && !text.slice(0, -1).includes("*")) {
      return { kind: "prefix", field, text: text.slice(0, -1) };
    }
    return equal(field, text);
  }

  bound(token, operator) {
    const written = token.text.slice(operator.length);
    if (written) return this.withColons(written, token.end);
    if (this.token.kind === "phrase" && this.token.start === token.end) return this.step().text;
    throw new QueryError(`nothing stands behind ${operator}`, token.end, "a number or a value");
  }

  withColons(beginning, from) {
    let [text, end] = [beginning, from];
    while ([":", "word"].includes(this.token.kind) && this.token.start === end) {
      [text, end] = [text + this.token.text, this.token.end];
      this.next += 1;
    }
    return text;
  }

  range(field) {
    this.take("[", "[");
    const least = this.endOfRange(field);
    if (!this.isWord("TO")) throw new QueryError(found(this.token), this.token.start, "TO");
    this.next += 1;
    const most = this.endOfRange(field);
    this.take("]", "]");
    const ends = [[">=", least], ["<=", most]];
    const terms = ends.map(([operator, value]) => ({ kind: "compare", field, operator, value }));
    return { kind: "and", terms };
  }

  endOfRange(field) {
    if (this.token.kind === "phrase") return this.step().text;
    if (this.token.kind !== "word" || this.isLogic()) {
      const expected = `an end of the range of '${field}': [1 TO 5]`;
      throw new QueryError(found(this.token), this.token.start, expected);
    }
    const token = this.step();
    return this.withColons(token.text, token.end);
  }

  group(term) {
    this.descend();
    this.next += 1;
    const query = this.alternatives(term);
    this.take(")", "a term, OR or a closing parenthesis");
    this.depth -= 1;
    return query;
  }

  descend() {
    this.depth += 1;
    if (this.depth > MAX_DEPTH) {
      const expected = `at most ${MAX_DEPTH} levels`;
      throw new QueryError("the query is nested too deep", this.token.start, expected);
    }
  }

  isWord(word) {
    return this.token.kind === "word" && this.token.text === word;
  }

  isLogic() {
    return this.token.kind === "word" && WORDS_OF_LOGIC.includes(this.token.text);
  }
}

function found(token) {
  return token.kind === "end" ? "the query ends too early" : `found '${token.text}'`;
}

// -- building --------------------------------------------------------------------------------------

function joined(kind, terms) {
  const flat = terms.flatMap((term) => (term.kind === kind ? term.terms : [term]));
  return flat.length === 1 ? flat[0] : { kind, terms: flat };
}

const allOf = (terms) => joined("and", terms);
const anyOf = (terms) => joined("or", terms);

function negated(term) {
  return term.kind === "not" ? term.term : { kind: "not", term };
}

/** A field that is equal to a value. */
export function equal(field, value) {
  return { kind: "compare", field, operator: "=", value };
}

/** A term that a query must also match; the opposite term is taken out of the query. */
export function withTerm(query, term) {
  const terms = query.kind === "and" ? query.terms : [query];
  const text = print(term);
  const opposite = print(negated(term));
  const others = terms.filter((each) => ![text, opposite].includes(print(each)));
  return allOf([...others, term]);
}

/** The query without a term; it is unchanged if it does not have the term at its top. */
export function withoutTerm(query, term) {
  const terms = query.kind === "and" ? query.terms : [query];
  const text = print(term);
  return allOf(terms.filter((each) => print(each) !== text));
}

/** Whether a query has a term at its top. */
export function hasTerm(query, term) {
  const terms = query.kind === "and" ? query.terms : [query];
  const text = print(term);
  return terms.some((each) => print(each) === text);
}

/** The term for a value of a field; null stands for "the field is missing". */
export function termOf(field, value) {
  return value === null ? negated({ kind: "exists", field }) : equal(field, value);
}

/** The opposite of a term. */
export function opposite(term) {
  return negated(term);
}

// -- to text ---------------------------------------------------------------------------------------

/** The text of a query, so that `parse(print(query))` is the same query. */
export function print(query) {
  switch (query.kind) {
    case "text":
      return printedText(query.text);
    case "compare": {
      const operator = query.operator === "=" ? "" : query.operator;
      return `${printedField(query.field)}:${operator}${printedValue(query.value)}`;
    }
    case "prefix":
      return `${printedField(query.field)}:${query.text}*`;
    case "exists":
      return `${printedField(query.field)}:*`;
    case "not":
      return `-${printedInside(query.term)}`;
    case "and":
      return query.terms.length ? query.terms.map(printedInside).join(" ") : "*";
    default:
      return query.terms.map(print).join(" OR ");
  }
}

/** The text of a query for the search box: every event is an empty text. */
export function boxText(query) {
  const text = print(query);
  return text === "*" ? "" : text;
}

function printedInside(query) {
  const text = print(query);
  const isList = ["and", "or"].includes(query.kind) && query.terms.length > 0;
  return isList ? `(${text})` : text;
}

function quoted(text) {
  return `"${text.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
}

function printedText(text) {
  const hasMeaning = text.startsWith("-") || text === "*" || WORDS_OF_LOGIC.includes(text);
  return hasMeaning || !WORD.test(text) ? quoted(text) : text;
}

function printedField(field) {
  return WORDS_OF_LOGIC.includes(field) || !FIELD.test(field) ? quoted(field) : field;
}

function printedValue(value) {
  const isComparison = value.startsWith("<") || value.startsWith(">");
  const hasMeaning = isComparison || value.endsWith("*") || WORDS_OF_LOGIC.includes(value);
  return hasMeaning || !WORD.test(value) ? quoted(value) : value;
}
