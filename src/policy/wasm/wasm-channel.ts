import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads';
import { messageOf } from '../../runtime/errors.ts';

/**
 * The hand-over between the main thread and one policy worker: a ring of slots in shared memory, each holding one
 * evaluation and then its result. The worker sleeps on a futex and the main thread is woken by one, which costs less
 * than half of a message each way; only texts that do not fit a slot travel by MessagePort. Evaluations end in the order
 * in which they were sent.
 */
export type ChannelMemory = Readonly<{ shared: SharedArrayBuffer; port: MessagePort }>;

export type Reply = Readonly<{ ticket: number; kind: 'result' | 'error' | 'skipped'; text: string }>;

export interface MainEnd {
  /** How many evaluations can still be sent. */
  room(): number;
  /** Hands over one evaluation; only when there is room. Returns its ticket. */
  send(entrypoint: number, input: string): number;
  /** Lets the worker pass over an evaluation; false when it has begun it. */
  cancel(ticket: number): boolean;
  /** The next finished evaluation, in order, if there is one. */
  receive(): Reply | undefined;
  /** Resolves once there may be something to receive, or after `wake`. */
  wait(): Promise<void>;
  /** Ends every wait. */
  wake(): void;
}

const slotCount = 64; // a power of two, so that slots follow tickets across the wrap of 32 bits
const slotBytes = 32 * 1024;

const headerWords = 4;
const submittedWord = 0;
const completedWord = 1;
const asleepWord = 2;

const wordsPerSlot = 4;
const stateWord = 0;
const entrypointWord = 1;
const lengthWord = 2;

const queued = 0;
const running = 1;
const cancelled = 2;
const succeeded = 3;
const failed = 4;
const skipped = 5;

/** As a length: the text comes by the port. */
const byPort = -1;

const payloadStart = (headerWords + wordsPerSlot * slotCount) * Int32Array.BYTES_PER_ELEMENT;

/** Tickets count up from `firstTicket` and wrap around after 2^31 - 1. */
export function createSharedMemory(firstTicket = 0): SharedArrayBuffer {
  const shared = new SharedArrayBuffer(payloadStart + slotCount * slotBytes);
  const { words } = open(shared);
  words[submittedWord] = firstTicket;
  words[completedWord] = firstTicket;
  return shared;
}

function open(shared: SharedArrayBuffer): { words: Int32Array<SharedArrayBuffer>; payload: Buffer } {
  return {
    words: new Int32Array(shared, 0, payloadStart / Int32Array.BYTES_PER_ELEMENT),
    payload: Buffer.from(shared, payloadStart),
  };
}

function slotOf(ticket: number): { words: number; bytes: number } {
  const slot = ticket & (slotCount - 1);
  return { words: headerWords + slot * wordsPerSlot, bytes: slot * slotBytes };
}

export function createMainEnd(memory: ChannelMemory): MainEnd {
  const { words, payload } = open(memory.shared);
  let sent = Atomics.load(words, submittedWord);
  let received = sent;
  let wakeIsDue = false;

  /** Waking a thread costs more than a Check does otherwise, so one turn of the loop wakes it once. */
  function wakeWorker(): void {
    wakeIsDue = false;
    if (Atomics.load(words, asleepWord) === 1) Atomics.notify(words, submittedWord);
  }

  return {
    room: () => slotCount - ((sent - received) | 0),
    send(entrypoint, input) {
      const ticket = sent;
      const slot = slotOf(ticket);
      let length = byPort;
      if (input.length * 3 <= slotBytes || Buffer.byteLength(input) <= slotBytes) {
        length = payload.write(input, slot.bytes, slotBytes, 'utf8');
      } else {
        writePort(memory.port, Buffer.from(input));
      }
      words[slot.words + entrypointWord] = entrypoint;
      words[slot.words + lengthWord] = length;
      Atomics.store(words, slot.words + stateWord, queued);
      sent = (sent + 1) | 0;
      Atomics.store(words, submittedWord, sent);
      if (!wakeIsDue) {
        wakeIsDue = true;
        setImmediate(wakeWorker);
      }
      return ticket;
    },
    cancel(ticket) {
      return Atomics.compareExchange(words, slotOf(ticket).words + stateWord, queued, cancelled) === queued;
    },
    receive() {
      if (received === Atomics.load(words, completedWord)) return undefined;
      const ticket = received;
      const slot = slotOf(ticket);
      const state = Atomics.load(words, slot.words + stateWord);
      const length = words[slot.words + lengthWord] ?? 0;
      received = (received + 1) | 0;
      if (state === skipped) return { ticket, kind: 'skipped', text: '' };
      const text =
        length === byPort
          ? readPort(memory.port).toString()
          : payload.toString('utf8', slot.bytes, slot.bytes + length);
      return { ticket, kind: state === succeeded ? 'result' : 'error', text };
    },
    async wait() {
      await Atomics.waitAsync(words, completedWord, received).value;
    },
    wake() {
      Atomics.notify(words, completedWord);
    },
  };
}

/** The worker's side: answers evaluations for ever, blocking its thread while there is none. */
export function serveChannel(
  memory: ChannelMemory,
  evaluate: (entrypoint: number, input: Uint8Array) => Uint8Array,
): never {
  const { words, payload } = open(memory.shared);
  const sleepUntilSent = (ticket: number): void => {
    for (;;) {
      if (Atomics.load(words, submittedWord) !== ticket) return;
      // Raised before the second look, so that a sender either is seen by it or sees the flag.
      Atomics.store(words, asleepWord, 1);
      if (Atomics.load(words, submittedWord) === ticket) Atomics.wait(words, submittedWord, ticket);
      Atomics.store(words, asleepWord, 0);
    }
  };
  for (let ticket = Atomics.load(words, completedWord); ; ticket = (ticket + 1) | 0) {
    sleepUntilSent(ticket);
    const slot = slotOf(ticket);
    const length = words[slot.words + lengthWord] ?? 0;
    const input =
      length === byPort ? readPort(memory.port) : payload.subarray(slot.bytes, slot.bytes + length);
    const goOn = Atomics.compareExchange(words, slot.words + stateWord, queued, running) === queued;
    let state = skipped;
    let output: Uint8Array = new Uint8Array();
    if (goOn) {
      try {
        output = evaluate(words[slot.words + entrypointWord] ?? 0, input);
        state = succeeded;
      } catch (error) {
        output = Buffer.from(messageOf(error));
        state = failed;
      }
    }
    if (output.byteLength <= slotBytes) {
      payload.set(output, slot.bytes);
      words[slot.words + lengthWord] = output.byteLength;
    } else {
      writePort(memory.port, output.slice());
      words[slot.words + lengthWord] = byPort;
    }
    Atomics.store(words, slot.words + stateWord, state);
    Atomics.store(words, completedWord, (ticket + 1) | 0);
    Atomics.notify(words, completedWord);
  }
}

function writePort(port: MessagePort, bytes: Uint8Array): void {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- that is about windows
  port.postMessage(bytes);
}

function readPort(port: MessagePort): Buffer {
  const received: { message: Uint8Array } | undefined = receiveMessageOnPort(port);
  const bytes = received?.message ?? new Uint8Array();
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
