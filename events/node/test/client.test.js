import assert from "node:assert/strict";
import { test } from "node:test";
import { AckPolicy } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { CompactEncrypt, compactDecrypt, exportJWK, generateKeyPair, importJWK } from "jose";
import { Client, DurableError, InvalidError, NoWorkerError, RefusedError, TooLargeError, refusedIn, subjectToken } from "../lib/index.js";
import { connectedBody } from "../lib/check.js";
import { retry } from "../lib/retry.js";
import { alice, bench, connectedAt, until } from "./bench.js";

const alg = "ECDH-ES+A256KW";
const reply = { accessTokens: [{ accountId: "a", accessToken: "SECRET" }], expiries: [{ accountId: "a", grantId: "g", version: 3 }] };
const secretless = (err) => !/SECRET/.test(`${err.message} ${err.stack} ${err.cause}`);
const fails = (promise, kind, check = () => true) =>
  assert.rejects(promise, (err) => {
    assert.ok(err instanceof kind, `${err.name}: ${err.message}`);
    assert.ok(secretless(err), err.message);
    return check(err);
  });

test("connects and disconnects", { concurrency: true }, async (t) => {
  await t.test("are stored", async () => {
    const b = bench();
    await b.integration();
    await b.client().publishConnected({ ...alice, labels: { id: "1" } });
    assert.deepEqual(await b.stored(1), { ...alice, labels: { id: "1" } });
    await b.client().publishConnected({ ...alice, connectedAt: new Date(connectedAt), payload: `{"accessToken":{"tokenId":12345678901234567890}}` });
    assert.match((await b.jsm.streams.getMessage(`${b.prefix}_i`, { seq: 2 })).string(), /"tokenId":12345678901234567890/, "text stays as it is");
    await b.client().publishDisconnected({ userId: "alice", everything: true, disconnectedAt: connectedAt });
    assert.deepEqual(await b.stored(3), { userId: "alice", everything: true, disconnectedAt: connectedAt });
  });
  await t.test("wait until they are stored, under one id", async () => {
    const b = bench();
    const ids = [];
    b.nc.subscribe(b.subject("integration.connected"), { callback: (_, msg) => ids.push(msg.headers.get("Nats-Msg-Id")) });
    const published = b.client({ attemptTimeout: 100 }).publishConnected(alice);
    await until(() => ids.length > 1, "a second attempt");
    await b.integration();
    await published;
    assert.equal(new Set(ids).size, 1);
    assert.equal(await b.count(), 1);
  });
  await t.test("that break their contract are not sent", async () => {
    const b = bench();
    await b.integration();
    const c = b.client();
    for (const bad of [
      { userId: "" }, { userId: "a\nb" }, { userId: "\ud800" }, { userId: "x".repeat(301) }, { connectedAt: undefined }, { connectedAt: "SECRET" },
      { connectedAt: new Date(NaN) }, { payload: undefined }, { payload: { SECRET: 1 } }, { payload: '{"SECRET":' }, { payload: ["SECRET"] },
    ]) {
      await fails(c.publishConnected({ ...alice, ...bad }), InvalidError);
    }
    for (const bad of [{}, { brokerType: "" }, { brokerType: null }, { everything: false }, { everything: "yes" }, { everything: true, accountId: "a" }, { acountId: "a", everything: true }]) {
      await fails(c.publishDisconnected({ userId: "alice", disconnectedAt: connectedAt, ...bad }), InvalidError);
    }
    await fails(c.publishDisconnected({ userId: "alice", everything: true }), InvalidError);
    await fails(c.publishConnected({ ...alice, labels: { x: "x".repeat(b.nc.info.max_payload) } }), TooLargeError);
    // The header counts, too.
    const spare = b.nc.info.max_payload - 10 - connectedBody({ ...alice, labels: { x: "" } }).length;
    await fails(c.publishConnected({ ...alice, labels: { x: "x".repeat(spare) } }), TooLargeError);
    await b.jsm.streams.update(`${b.prefix}_i`, { max_msg_size: 100 });
    await fails(c.publishConnected(alice), TooLargeError);
    assert.equal(await b.count(), 0);
  });
  await t.test("end with the time and with the signal", async () => {
    const b = bench();
    const begun = Date.now();
    await assert.rejects(b.client().publishConnected(alice, { timeout: 300 }));
    await assert.rejects(b.client().publishConnected(alice, { signal: AbortSignal.timeout(100) }), { name: "TimeoutError" });
    const enough = new AbortController();
    enough.abort(new Error("enough"));
    await assert.rejects(b.client().publishConnected(alice, { signal: enough.signal }), /enough/);
    assert.ok(Date.now() - begun < 20_000);
  });
});

async function keyPair() {
  const { publicKey, privateKey } = await generateKeyPair(alg, { crv: "P-256" });
  return { privateKey, keys: { keys: [{ kty: "RSA" }, { ...(await exportJWK(publicKey)), kid: "k" }] } };
}

test("sealed connects", async () => {
  const b = bench();
  await b.integration();
  const [old, fresh] = [await keyPair(), await keyPair()];
  const asked = b.answer("token.keys", { code: "busy" }, old.keys, fresh.keys, { code: "internal" });
  let now = 0;
  const c = b.client({ sealConnects: true, now: () => now });
  let published = 0;
  const publish = async (key) => {
    await c.publishConnected(alice);
    const { sealed, ...beside } = await b.stored(++published);
    assert.deepEqual(beside, {});
    const { plaintext, protectedHeader } = await compactDecrypt(sealed, key.privateKey);
    assert.deepEqual(JSON.parse(new TextDecoder().decode(plaintext)), alice);
    assert.equal(protectedHeader.kid, "k");
  };
  const hour = 3_600_000;
  await publish(old);
  assert.equal(asked.length, 2, "busy, then the key");
  now = hour - 1;
  await publish(old);
  assert.equal(asked.length, 2);
  now = hour;
  await publish(fresh);
  assert.equal(asked.length, 3);
  now = 2 * hour;
  await publish(fresh);
  await publish(fresh);
  assert.equal(asked.length, 4, "not with every connect");
  assert.equal(b.problems.length, 1);
  now = 26 * hour;
  await fails(c.publishConnected(alice), RefusedError, (err) => err.code === "internal");
  await fails(bench().client({ sealConnects: true }).publishConnected(alice, { timeout: 300 }), NoWorkerError);
  const none = bench();
  none.answer("token.keys", { keys: [] });
  await fails(none.client({ sealConnects: true }).publishConnected(alice), InvalidError);
  assert.equal(await b.count(), published);
});

test("tokens", { concurrency: true }, async (t) => {
  await t.test("are asked for until they can be had", async () => {
    const b = bench();
    const asked = b.client({ attemptTimeout: 200 }).tokens({ userId: "a.b", minTTLSeconds: 60 }); // before anybody answers
    const heard = b.answer("token.get.*", { code: "busy" }, null, { code: "busy", retryAfterSeconds: 1 }, reply);
    assert.deepEqual(await asked, reply);
    assert.deepEqual(heard.at(-1), { userId: "a.b", minTTLSeconds: 60 });
    assert.deepEqual(refusedIn(reply, "a", "b"), [{ grantId: "g", version: 3 }]);
  });
  await t.test("are not asked for before it helps", async () => {
    const b = bench();
    const heard = b.answer("token.get.*", { code: "busy", retryAfterSeconds: 3600 });
    await fails(b.client().tokens({ userId: "alice" }), RefusedError, (err) => err.retryAfterSeconds === 3600 && !err.reconnect);
    assert.equal(heard.length, 1);
  });
  await t.test("have errors of their own", async () => {
    const b = bench();
    await fails(b.client().tokens({ userId: "alice" }, { timeout: 300 }), NoWorkerError);
    await fails(b.client().tokens({}), InvalidError);
    await fails(b.client().tokens({ userId: "alice", sealTo: { kty: "EC" } }), InvalidError);
    const unavailable = [{ accountId: "a", brokerType: "b", grantId: "g", code: "expired" }];
    b.answer("token.get.*", { code: "expired", message: "words", unavailable }, "SECRET", "[]", { code: "busy" }, null);
    await fails(b.client().tokens({ userId: "alice" }), RefusedError, (err) => err.code === "expired" && err.reconnect && err.unavailable[0].grantId === "g");
    await fails(b.client().tokens({ userId: "alice" }), InvalidError);
    await fails(b.client().tokens({ userId: "alice" }), InvalidError);
    await fails(b.client().tokens({ userId: "alice" }, { timeout: 500 }), RefusedError, (err) => err.code === "busy");
    await assert.rejects(b.client().tokens({ userId: "alice" }, { timeout: 300 }), { name: "TimeoutError" });
    await assert.rejects(b.client().tokens({ userId: "alice" }, { signal: AbortSignal.abort(new Error("enough")) }), /enough/);
  });
  await t.test("are sealed", async () => {
    const b = bench();
    const sealed = async ({ sealTo }) => ({
      sealed: await new CompactEncrypt(new TextEncoder().encode(JSON.stringify(reply))).setProtectedHeader({ alg, enc: "A256GCM" }).encrypt(await importJWK(sealTo, alg)),
    });
    const other = await keyPair();
    const heard = b.answer("token.get.*", sealed, sealed, reply, () => sealed({ sealTo: other.keys.keys[1] }));
    const c = b.client({ sealReplies: true });
    assert.deepEqual(await c.tokens({ userId: "alice" }), reply);
    assert.deepEqual(await c.tokens({ userId: "alice" }), reply);
    assert.deepEqual(Object.keys(heard[0].sealTo).sort(), ["crv", "kty", "x", "y"], "no private part");
    assert.deepEqual(heard[0], heard[1], "one key for all requests");
    await fails(c.tokens({ userId: "alice" }), InvalidError, (err) => /not sealed/.test(err.message));
    await fails(c.tokens({ userId: "alice" }), InvalidError, (err) => /does not open/.test(err.message));
  });
  await t.test("follow a code, which is sent once", async () => {
    const b = bench();
    const heard = b.answer("token.mfa.*", { grantId: "g", version: 8 }, { code: "busy" });
    const request = { userId: "alice", grantId: "g", code: "246810", version: 7 };
    assert.deepEqual(await b.client().completeMFA(request), { grantId: "g", version: 8 });
    await fails(b.client().completeMFA(request), RefusedError, (err) => err.code === "busy");
    assert.deepEqual(heard, [request, request]);
    await fails(b.client().completeMFA({ ...request, userId: "" }), InvalidError);
  });
});

/** A running subscription: heard are ids, said decides what the handler does. */
function subscriber(b, subscription, said = () => {}, client = b.client()) {
  const stop = new AbortController();
  const heard = [];
  const ended = client.subscribe(subscription, async (event) => (heard.push(event.id), said(event)), { signal: stop.signal });
  ended.catch(() => {});
  return { heard, ended, stop: () => (stop.abort(), ended), hears: (id) => until(() => heard.includes(id), `${id}; heard ${heard}`) };
}

test("lifecycle events", { concurrency: true }, async (t) => {
  await t.test("are shared, and continue where they were", async () => {
    const b = bench();
    await b.events();
    await b.tell("1", "token.stored", "a.b");
    await b.tell("x", "token.stored", "carol");
    await b.tell("junk", "token.expired", "a.b", { specversion: "1.0" });
    await b.tell("forged", "token.expired", "a.b", { specversion: "1.0", id: "forged", type: "token.expired", data: { userId: "bob" } });
    await b.tell("2", "token.expired", "a.b");
    const d = { durable: "d", kinds: ["token.expired", "token.stored"], users: ["a.b"] };
    let failed = false;
    const first = subscriber(b, d, ({ id }) => {
      if (id === "1" && !failed) throw ((failed = true), new Error("not now"));
    });
    await first.hears("2");
    await until(() => first.heard.length === 3, "1 again");
    assert.deepEqual(first.heard, ["1", "2", "1"]);
    assert.equal(b.problems.length, 3, `${b.problems}`);
    assert.equal(b.problems[0].cause.message, "not now");
    await until(async () => (await b.jsm.consumers.info(b.lifecycle, "d")).num_ack_pending === 0, "acknowledged");
    await first.stop();
    await b.tell("3", "token.stored", "a.b");
    const second = subscriber(b, { ...d, newOnly: true }); // it makes no difference now
    await second.hears("3");
    assert.deepEqual(second.heard, ["3"]);
    await second.stop();
  });
  await t.test("stay a handler's for as long as it takes", async () => {
    const b = bench();
    await b.events();
    let signs = 0;
    b.nc.subscribe("$JS.ACK.>", { callback: (_, msg) => (signs += msg.subject.includes(`.${b.lifecycle}.`) && msg.string() === "+WPI") });
    let finish;
    const finished = new Promise((resolve) => (finish = resolve));
    const s = subscriber(b, { durable: "d", ackWait: 500 }, () => finished);
    await b.tell("1", "token.stored", "alice");
    await s.hears("1");
    await until(() => signs >= 3, "signs of progress");
    finish();
    await until(async () => (await b.jsm.consumers.info(b.lifecycle, "d")).ack_floor.stream_seq === 1, "acknowledged");
    await s.stop();
  });
  await t.test("of a durable with other settings are left alone", async () => {
    const b = bench();
    await b.events();
    const d = { durable: "d", kinds: ["token.stored"] };
    const first = subscriber(b, d);
    await b.tell("1", "token.stored", "alice");
    await first.hears("1");
    for (const [other, named] of [
      [{ kinds: ["token.revoked"] }, /token\.revoked/],
      [{ users: ["alice"] }, /token\.stored\.alice/],
      [{ ackWait: 60_000 }, /an ack wait of 30000 ms, not 60000 ms/],
    ]) {
      await fails(b.client().subscribe({ ...d, ...other }, () => {}), DurableError, (err) => named.test(err.message));
    }
    for (const [durable, other, named] of [
      ["unacknowledged", { ack_policy: AckPolicy.None }, /ack policy none/],
      ["headers", { headers_only: true }, /headers only/],
      ["pushed", { deliver_subject: b.subject("pushed") }, /push consumer/],
    ]) {
      await b.jsm.consumers.add(b.lifecycle, { durable_name: durable, ack_policy: AckPolicy.Explicit, filter_subject: `${b.subject("token.stored")}.*`, ack_wait: 30e9, ...other });
      await fails(b.client().subscribe({ ...d, durable }, () => {}), DurableError, (err) => named.test(err.message));
    }
    await b.tell("2", "token.stored", "alice");
    await first.hears("2");
    await first.stop();
  });
  await t.test("continue where a lost consumer was", async () => {
    const b = bench();
    await b.events();
    await b.tell("before", "token.stored", "alice");
    let go;
    const s = subscriber(b, { durable: "d", newOnly: true }, ({ id }) => id === "1" && !go && new Promise((resolve) => (go = resolve)));
    await until(() => b.jsm.consumers.info(b.lifecycle, "d").then((info) => info.num_waiting > 0, () => false), "a pull");
    await b.tell("1", "token.stored", "alice");
    await s.hears("1");
    await b.jsm.consumers.delete(b.lifecycle, "d");
    await b.tell("2", "token.stored", "alice");
    await b.tell("3", "token.stored", "alice");
    go();
    await s.hears("3");
    assert.ok(s.heard.includes("2") && !s.heard.includes("before"), `${s.heard}`);
    assert.ok(b.problems.length > 0);
    // A stream that was made again counts from 1: all of it is new.
    await b.jsm.streams.delete(b.lifecycle);
    await b.events();
    await b.tell("4", "token.stored", "alice");
    await s.hears("4");
    await s.stop();
  });
  await t.test("are no longer waited for when the signal is aborted between two tries", async () => {
    const b = bench();
    await b.events();
    const stop = new AbortController();
    let problems = 0;
    const client = b.client({ onError: () => ++problems === 4 && stop.abort() });
    const ended = client.subscribe({ durable: "d" }, () => {}, { signal: stop.signal });
    await until(() => b.jsm.consumers.info(b.lifecycle, "d").then((info) => info.num_waiting > 0, () => false), "a pull");
    await b.jsm.streams.delete(b.lifecycle);
    await until(() => stop.signal.aborted, "four failures");
    await b.events();
    await ended;
    await assert.rejects(b.jsm.consumers.info(b.lifecycle, "d"), /consumer not found/);
  });
  await t.test("need no more than the permissions of an observer", async (t) => {
    const b = bench("");
    await b.events();
    const own = await connect({ servers: process.env.NATS_URL, user: "observer", pass: "x", inboxPrefix: "_INBOX_observer" });
    t.after(() => own.close()); // or the process would not end
    const client = new Client(own, { onError: (err) => b.problems.push(err) });
    const s = subscriber(b, { durable: "observer", kinds: ["token.expired", "token.expiring"] }, undefined, client);
    await b.tell("1", "token.expired", "alice");
    await s.hears("1");
    await b.jsm.consumers.delete(b.lifecycle, "observer");
    await b.tell("2", "token.expiring", "alice");
    await s.hears("2");
    await s.stop();
    assert.ok(!b.problems.some((err) => /permission/i.test(err.message)), `${b.problems}`);
    await b.jsm.streams.delete(b.lifecycle);
  });
  await t.test("come in order without a durable", async () => {
    const b = bench();
    await b.events();
    for (const id of ["1", "2"]) await b.tell(id, "token.stored", "alice");
    const s = subscriber(b, {});
    await s.hears("2");
    assert.deepEqual(s.heard, ["1", "2"]);
    await s.stop();
    const failing = subscriber(b, {}, () => {
      throw new Error("boom");
    });
    await assert.rejects(failing.ended, /boom/);
  });
  await t.test("can not be had where there are none", async () => {
    const b = bench();
    await fails(b.client().subscribe({ kinds: ["token.unknown"] }, () => {}), InvalidError);
    await fails(b.client().subscribe({ users: [""] }, () => {}), InvalidError);
    await assert.rejects(b.client().subscribe({ durable: "d" }, () => {}), /stream not found/);
    await assert.rejects(b.client().subscribe({}, () => {}), /stream not found/);
    await b.client().subscribe({ durable: "d" }, () => {}, { signal: AbortSignal.abort() });
  });
});

test("rejected connects", async () => {
  const b = bench();
  const stop = new AbortController();
  const heard = [];
  const all = b.client().rejections([], (event) => heard.push(event.id), { signal: stop.signal });
  const some = b.client().rejections(["a.b"], (event) => heard.push(`${event.id} of a.b`), { signal: stop.signal });
  await b.nc.flush();
  const say = (id, user, as = user) => b.nc.publish(b.subject("integration.rejected", as), JSON.stringify({ id, data: { userId: user, reason: "older" } }));
  say("1", "a.b");
  say("2", "carol");
  say("3", "carol", "dave");
  say("4", "carol");
  await until(() => heard.includes("4"), "4");
  assert.deepEqual(heard.sort(), ["1", "1 of a.b", "2", "4"]);
  assert.equal(b.problems.length, 1);
  stop.abort();
  await Promise.all([all, some]);
  await fails(b.client().rejections([""], () => {}), InvalidError);
});

test("a call that is aborted between two tries leaves no timer", async () => {
  const timers = () => process.getActiveResourcesInfo().filter((kind) => kind === "Timeout").length;
  const stop = new AbortController();
  const before = timers();
  const tried = retry({ timeout: 3_600_000, limit: 1_000, signal: stop.signal, transient: () => true }, async () => {
    setTimeout(() => stop.abort(new Error("enough")), 10);
    throw new RefusedError("busy", { retryAfterSeconds: 60 });
  });
  await assert.rejects(tried, /enough/);
  assert.ok(timers() <= before, `${timers()} timers, not ${before}`);
});

test("users in subjects", () => {
  assert.equal(subjectToken("user.1@example.com"), "user%2E1%40example%2Ecom");
  assert.equal(subjectToken("zoë"), "zo%C3%AB");
});
