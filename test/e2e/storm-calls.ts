import type { GrpcClient } from '../../src/grpc/client.ts';
import { Status, StatusError } from '../../src/grpc/status.ts';
import { AbortedError } from '../../src/runtime/errors.ts';
import * as oracle from './storm-oracle.ts';
import type { Weather } from './storm-world.ts';

/** Checks under way at once. */
export const inFlight = 256;

/** An answer with the policy that it names, if it names one. */
export type Judged = oracle.Answer &
  Readonly<{ decisionId: string; policy: oracle.PolicyVersion | undefined }>;

/** Makes Checks, 256 at a time, and judges each answer at the moment that it comes. */
export function createCalls(
  client: GrpcClient,
  weather: Weather,
  requestAt: (index: number) => oracle.Request,
) {
  const answers: Judged[] = [];
  const wrong: string[] = [];
  const ended = { cancelled: 0, late: 0, hurried: 0 };
  const reasons = new Map<string, number>();
  let next = 0;

  async function call(index: number): Promise<void> {
    const request = requestAt(index);
    const { cancelAfterMs, timeoutMs } = patience(index);
    const cancel = new AbortController();
    const sentAt = performance.now();
    const answering = client.unary('/envoy.service.auth.v3.Authorization/Check', request.bytes, {
      signal: cancel.signal,
      timeoutMs,
    });
    const timer = cancelAfterMs === undefined ? undefined : setTimeout(() => cancel.abort(), cancelAfterMs);
    try {
      const answer = oracle.readAnswer(await answering);
      const problem = judge(request, answer, sentAt, performance.now(), timeoutMs < patient);
      if (problem !== undefined) wrong.push(`Check ${index}: ${problem}`);
    } catch (error) {
      const late = error instanceof StatusError && error.status === Status.DEADLINE_EXCEEDED;
      if (error instanceof AbortedError && cancel.signal.aborted) ended.cancelled += 1;
      else if (late && timeoutMs < patient) ended.late += 1;
      else wrong.push(`Check ${index}: ${String(error)}`);
    } finally {
      clearTimeout(timer);
    }
  }

  function judge(
    request: oracle.Request,
    answer: oracle.Answer,
    sentAt: number,
    receivedAt: number,
    hurried: boolean,
  ): string | undefined {
    const { decisionId, version } = answer;
    if (decisionId === undefined) return `no decision ID in ${JSON.stringify(answer)}`;
    const policies = weather.policy.between(sentAt, receivedAt);
    const policy = policies.find((one) => one.version === version && one.modulus === answer.modulus);
    answers.push({ ...answer, decisionId, policy });
    reasons.set(String(answer.reason), (reasons.get(String(answer.reason)) ?? 0) + 1);
    if (hurried && answer.http === 'Forbidden' && outOfTime.has(String(answer.reason))) {
      ended.hurried += 1;
      return undefined;
    }
    const shown = JSON.stringify(answer);
    if (version !== undefined && policy === undefined) {
      return `${shown}, but in force were only ${policies.map((one) => `${one.version}/${one.modulus}`).join()}`;
    }
    // From now on nobody may be answered by an older one.
    if (policy !== undefined) weather.policy.settle(policy.step);
    const worlds = weather.trust
      .between(sentAt, receivedAt)
      .flatMap((trust) => weather.denied.between(sentAt, receivedAt).map((denied) => ({ trust, denied })));
    const all = worlds.map((world) => oracle.prescribed(request, world, policy));
    const fits = all.some(
      ({ http, reason, asked }) =>
        http === answer.http && reason === answer.reason && asked === (policy !== undefined),
    );
    if (!fits) return `${shown}, but prescribed is ${JSON.stringify(all)}`;
    if (policy === undefined) return undefined;
    const same = answer.n === request.n && answer.peer === request.peer && answer.modulus === policy.modulus;
    return same ? undefined : `${shown} is the answer to another request than ${request.peer} ${request.n}`;
  }

  return {
    answers,
    wrong,
    async make(count: number): Promise<void> {
      const end = next + count;
      const one = async (): Promise<void> => {
        while (next < end) await call(next++);
      };
      await Promise.all(Array.from({ length: inFlight }, one));
    },
    /** Those that came to an end in one way or the other. */
    total: () => answers.length + ended.cancelled + ended.late,
    ended,
    kinds: () => ({ ...ended, ...Object.fromEntries(reasons) }),
  };
}

const patient = 60_000;
const outOfTime: ReadonlySet<string> = new Set(['engine_timeout', 'token_unavailable']);

/** Every hundredth caller or so goes away early, and some are in a hurry. */
function patience(index: number): Readonly<{ cancelAfterMs?: number; timeoutMs: number }> {
  if (index % 97 === 5) return { cancelAfterMs: index % 6, timeoutMs: patient };
  return { timeoutMs: index % 53 === 7 ? 1 + (index % 40) : patient };
}
