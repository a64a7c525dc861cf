// Questions to the server: /api/v1 and nothing else.

/** A problem that the server answered, or that kept it from answering. */
export class Problem extends Error {
  constructor(body, status) {
    super(body.detail ?? body.title ?? "the server answered without a reason");
    this.status = status;
    this.title = body.title ?? "";
    this.type = body.type ?? "";
    this.parameter = body.parameter ?? null;
    this.position = body.position ?? null;
    this.expected = body.expected ?? null;
    this.retryAfterS = null;
  }
}

export const isAborted = (error) => error.name === "AbortError";

const BUSY_TURNS = 3;

/** Where the server is not asked for what it does not have. */
export const isMissing = (error) => error.status === 404 || error.status === 405;

let askForToken = async () => "";

/** Who asks a person for a token: called where the server answers 401. */
export function onUnauthorized(ask) {
  askForToken = ask;
}

/** The address of a question. */
export function pathOf(path, parameters = {}) {
  const pairs = Object.entries(parameters).flatMap(([name, value]) => {
    const values = Array.isArray(value) ? value : [value];
    return values.map((each) => [name, String(each)]);
  });
  const text = new URLSearchParams(pairs).toString();
  return `/api/v1/${path}${text ? `?${text}` : ""}`;
}

/** Ask the server. Returns the response if its status is good; throws a Problem otherwise. */
export async function request(path, parameters = {}, { signal, accept } = {}) {
  const address = pathOf(path, parameters);
  let response = await sent(address, { signal, accept });
  // Other questions use all places for a moment: a person need not know.
  for (let turn = 0; turn < BUSY_TURNS && response.status === 429; turn += 1) {
    await new Promise((resolve) => setTimeout(resolve, 1000 * Number(response.headers.get("Retry-After") || 1)));
    response = await sent(address, { signal, accept });
  }
  if (response.status === 401) {
    await openSession();
    response = await sent(address, { signal, accept });
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

/** Ask the server for JSON. */
export async function ask(path, parameters = {}, options = {}) {
  const response = await request(path, parameters, options);
  return response.json();
}

async function sent(address, { signal, accept, token, method = "GET" }) {
  const headers = { Accept: accept ?? "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  try {
    return await fetch(address, { method, headers, signal, credentials: "same-origin" });
  } catch (error) {
    if (isAborted(error)) throw error;
    throw new Problem({ title: "No answer", detail: "the server does not answer: is `obs serve` running?" }, 0);
  }
}

let opening = null;

/** Get a cookie for a token that a person types; questions that wait at the same time share it. */
function openSession() {
  opening ??= newSession().finally(() => {
    opening = null;
  });
  return opening;
}

async function newSession() {
  let refused = "";
  for (;;) {
    // The token goes into a header once. No script can read the cookie that comes back.
    const token = await askForToken(refused);
    const response = await sent("/api/v1/session", { token, method: "POST" });
    if (response.ok) return;
    refused = (await problemOf(response)).message;
  }
}

async function problemOf(response) {
  const body = await response.json().catch(() => ({}));
  const problem = new Problem(body, response.status);
  const after = Number(response.headers.get("Retry-After"));
  if (after) problem.retryAfterS = after;
  return problem;
}

/**
 * A panel's questions: a new one ends the one before it.
 *
 * `run(question, {started, done, failed})` calls `question(signal)`.
 */
export class Latest {
  constructor() {
    this.controller = null;
  }

  abort() {
    this.controller?.abort();
    this.controller = null;
  }

  async run(question, { started, done, failed }) {
    this.abort();
    const controller = new AbortController();
    this.controller = controller;
    started?.();
    try {
      const answer = await question(controller.signal);
      if (this.controller === controller) done(answer);
    } catch (error) {
      if (this.controller === controller && !isAborted(error)) failed(error);
    }
  }
}
