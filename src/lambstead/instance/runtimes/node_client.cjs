'use strict';
// Stands in for `rapid-client.node`, the compiled half of AWS's Node.js interface client, so that nothing has to be compiled: loaded with
// `node --require` before AWS's JavaScript, which stays as it was published and runs on top of this. It answers a `require` of that file with
// the same three functions, spoken over two connections to the Runtime API: one for polls, one for answers.
//
// Like the compiled client, `done` and `error` have handed their bytes over when they return: AWS's 3.x client calls `process.exit` right after
// them. Connections are held by the event loop only while an answer from the Runtime API is due: 3.x takes an empty loop for a handler's end.

const fs = require('node:fs');
const Module = require('node:module');
const net = require('node:net');
const { isMainThread } = require('node:worker_threads');

const INVOCATION = '/2018-06-01/runtime/invocation/';
const HEAD_END = '\r\n\r\n';
const NOTHING = Buffer.alloc(0);
const SENT_AGAIN_AFTER_MS = 1;
const never = new Int32Array(new SharedArrayBuffer(4));

/** One connection that sends requests and gets their answers in the same order. */
class Connection {
  constructor(host, port) {
    this.authority = `${host}:${port}`;
    this.due = [];
    this.rest = NOTHING; // bytes of a head that is not whole yet
    this.answer = null; // the answer whose body comes in
    this.isUp = false;
    this.socket = net.connect({ host, port, noDelay: true });
    this.socket.on('connect', () => { this.isUp = true; });
    this.socket.on('data', (chunk) => this.received(chunk));
    this.socket.on('error', () => {}); // 'close' follows
    this.socket.on('close', () => this.closed());
    this.socket.unref();
  }

  /** Send a request; the promise is for its answer. Once connected, the bytes are with the kernel when this returns. */
  request(method, path, headers = '', body = '') {
    const length = body === '' ? '' : `Content-Length: ${Buffer.byteLength(body)}\r\n`;
    const bytes = Buffer.from(`${method} ${path} HTTP/1.1\r\nHost: ${this.authority}\r\n${headers}${length}\r\n${body}`);
    return new Promise((resolve, reject) => {
      this.due.push({ resolve, reject });
      this.socket.ref();
      this.send(bytes);
    });
  }

  send(bytes) {
    const fd = this.isUp && this.socket.writableLength === 0 ? this.socket._handle?.fd : undefined;
    if (fd === undefined || fd < 0) {
      this.socket.write(bytes);
      return;
    }
    try {
      writeWhole(fd, bytes);
    } catch {
      this.socket.destroy();
    }
  }

  received(chunk) {
    while (chunk.length > 0) {
      if (this.answer === null) {
        this.rest = this.rest.length > 0 ? Buffer.concat([this.rest, chunk]) : chunk;
        const end = this.rest.indexOf(HEAD_END);
        if (end < 0) return;
        this.answer = parsedHead(this.rest.latin1Slice(0, end));
        chunk = this.rest.subarray(end + HEAD_END.length);
        this.rest = NOTHING;
      }
      const part = chunk.subarray(0, this.answer.missing);
      chunk = chunk.subarray(part.length);
      this.answer.parts.push(part);
      this.answer.missing -= part.length;
      if (this.answer.missing === 0) this.complete();
    }
  }

  complete() {
    const { status, headers, parts } = this.answer;
    this.answer = null;
    const asked = this.due.shift();
    if (this.due.length === 0) this.socket.unref();
    asked?.resolve({ status, headers, body: parts.length === 1 ? parts[0] : Buffer.concat(parts) });
  }

  closed() {
    this.isUp = false;
    const due = this.due;
    this.due = [];
    for (const { reject } of due) reject(new Error('the connection to the Runtime API was closed'));
  }

  get isOver() {
    return this.socket.destroyed;
  }
}

/** Write everything, however long the reader takes, as the compiled client does. */
function writeWhole(fd, bytes) {
  let written = 0;
  while (written < bytes.length) {
    try {
      written += fs.writeSync(fd, bytes, written);
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
      Atomics.wait(never, 0, 0, SENT_AGAIN_AFTER_MS);
    }
  }
}

function parsedHead(text) {
  const [statusLine, ...lines] = text.split('\r\n');
  const headers = {};
  for (const line of lines) {
    const colon = line.indexOf(':');
    headers[line.slice(0, colon).toLowerCase()] = utf8(line.slice(colon + 1).trim());
  }
  return { status: Number(statusLine.slice(9, 12)), headers, missing: Number(headers['content-length'] ?? 0), parts: [] };
}

/** Headers of the Runtime API are UTF-8, as the compiled client reads them. */
function utf8(latin1) {
  return /^[\x00-\x7f]*$/.test(latin1) ? latin1 : Buffer.from(latin1, 'latin1').toString('utf8');
}

/** The X-Ray cause as a header: JSON whose characters beyond ASCII are escaped. */
function ascii(json) {
  return json.replace(/[^\x20-\x7e]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

class RapidClient {
  constructor() {
    const [host, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(':');
    this.connect = () => new Connection(host, Number(port));
    this.isConcurrent = process.env.AWS_LAMBDA_MAX_CONCURRENCY !== undefined;
    this.polls = null;
    this.answers = null;
    this.answered = Promise.resolve();
  }

  next = async () => {
    if (!this.isConcurrent) await this.answered; // the compiled client has the answer's receipt when it polls again
    if (this.polls === null) this.begin();
    if (this.polls.isOver) this.polls = this.connect();
    const { status, headers, body } = await this.polls.request('GET', `${INVOCATION}next`);
    if (status !== 200) throw new Error(`Failed to get next invocation, error ${status}`);
    return { bodyJson: body.toString('utf8'), headers };
  };

  done = (id, body) => this.post(`${INVOCATION}${id}/response`, '', body);

  error = (id, body, xray) =>
    this.post(`${INVOCATION}${id}/error`, `Lambda-Runtime-Function-XRay-Error-Cause: ${ascii(xray)}\r\n`, body);

  begin() {
    this.polls = this.connect();
    this.answers = this.connect();
    // A worker thread that fails says so to nobody: its manager has no console. The function's log should know.
    if (!isMainThread) process.on('uncaughtExceptionMonitor', (error) => console.error(error));
  }

  post(path, headers, body) {
    if (this.answers === null || this.answers.isOver) this.answers = this.connect();
    // Whatever the Runtime API thinks of the answer: the compiled client does not look either.
    this.answered = this.answers.request('POST', path, `Content-Type: application/json\r\n${headers}`, body).catch(() => {});
  }
}

const load = Module._load;
let client = null;
Module._load = function (request, ...rest) {
  if (!request.endsWith('rapid-client.node')) return load.call(this, request, ...rest);
  client ??= new RapidClient();
  return client;
};
