import type { QueryRequest } from '../policy/request-match.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import type { CheckRequest } from './check-attributes.ts';

/** What the matches of the configuration look at in a Check. */
export function queryRequestOf({ attributes }: CheckRequest, peerId: SpiffeId | undefined): QueryRequest {
  const http = attributes?.request?.http;
  return {
    peerId,
    method: http?.method,
    path: http?.path,
    host: http?.host,
    contextExtensions: attributes?.contextExtensions,
  };
}
