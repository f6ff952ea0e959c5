// Node's built-in http2 as an uploader: one session, as many streams in flight as asked for, cleartext or TLS.
//
//     node node_client.mjs FOLDER URL [--concurrency 50] [--cacert ca.pem]
//
// URL ends in / (the relative path is appended) or holds {path}. What it prints is what the other rivals print
// (bench/rivals/tree.py).

import fs from "node:fs";
import http2 from "node:http2";
import path from "node:path";
import { parseArgs } from "node:util";

// A smaller file is read whole and sent by one write: a stream for each makes small files cost a third more CPU.
const SMALL = 64 << 10;
// What a stream reads at a time; with its default of 64 KiB large files cost half as much CPU again.
const PIECE = 256 << 10;
// Node refuses new streams in a session that holds more than 10 MB; fifty with a piece or two each may need more.
const SESSION_MB = 200;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { concurrency: { type: "string", default: "50" }, cacert: { type: "string" } },
});
const [folder, target] = positionals;
const url = new URL(target.replace("{path}", ""));
const template = target.slice(url.origin.length) + (target.includes("{path}") ? "" : "{path}");
const count = { files: 0, ok: 0, octets: 0, statuses: {}, connections: 1, versions: { node: process.version } };

// Percent-encode a relative path as Python's urllib.parse.quote does.
function quote(relative) {
  const escaped = (c) => "%" + c.charCodeAt(0).toString(16).toUpperCase();
  return relative.split("/").map((part) => encodeURIComponent(part).replace(/[!'()*]/g, escaped)).join("/");
}

// Yield [path to open, path of the request] of every regular file below a folder.
function* walk(place, prefix) {
  for (const entry of fs.readdirSync(place, { withFileTypes: true })) {
    if (entry.isDirectory()) yield* walk(path.join(place, entry.name), `${prefix}${entry.name}/`);
    else if (entry.isFile()) yield [path.join(place, entry.name), template.replace("{path}", quote(prefix + entry.name))];
  }
}

const files = walk(folder, "");
const session = http2.connect(url.origin, {
  ca: values.cacert ? fs.readFileSync(values.cacert) : undefined,
  maxSessionMemory: SESSION_MB,
});
session.on("error", (error) => {
  console.error(error);
  process.exitCode = 1;
});
session.on("close", () => console.log(JSON.stringify(count)));

let active = 0;
let more = true;

// Begin uploads until enough are in flight; close the session after the last one.
function begin() {
  while (more && active < Number(values.concurrency)) {
    const next = files.next();
    if (next.done) more = false;
    else upload(...next.value);
  }
  if (!more && active === 0) session.close();
}

function upload(file, requestPath) {
  active++;
  const descriptor = fs.openSync(file, "r");
  const { size } = fs.fstatSync(descriptor);
  const request = session.request({
    ":method": "PUT",
    ":path": requestPath,
    "content-length": size,
    "content-type": "application/octet-stream",
  });
  let status = 0;
  request.on("response", (fields) => (status = fields[":status"]));
  request.on("error", (error) => {
    console.error(file, error);
    status = 0;
  });
  request.on("close", () => finish(status, size));
  request.resume();
  if (size <= SMALL) {
    const body = Buffer.allocUnsafe(size);
    const read = fs.readSync(descriptor, body, 0, size, 0);
    fs.closeSync(descriptor);
    request.end(body.subarray(0, read));
  } else {
    fs.createReadStream(file, { fd: descriptor, highWaterMark: PIECE }).pipe(request);
  }
}

function finish(status, size) {
  active--;
  count.files++;
  count.statuses[status] = (count.statuses[status] ?? 0) + 1;
  if (status >= 200 && status < 300) {
    count.ok++;
    count.octets += size;
  }
  begin();
}

begin();
