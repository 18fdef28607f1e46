/** The calls this program makes to a Workload API. */
export type WorkloadRpc = 'fetch_x509_svid' | 'fetch_jwt_bundles' | 'fetch_jwt_svid';

/** Why a call or a message came to nothing, as a closed list for metrics. */
export type WorkloadFailure =
  | 'unreachable'
  | 'unavailable'
  | 'permission_denied'
  | 'invalid_argument'
  | 'unimplemented'
  | 'malformed'
  | 'timeout'
  | 'stream_ended'
  | 'other';

/** What the Workload API client has counted. */
export interface WorkloadMeter {
  /** A good message arrived. */
  updated(rpc: WorkloadRpc): void;
  failed(rpc: WorkloadRpc, failure: WorkloadFailure): void;
  /** Time from the call to its first answer, good or malformed. */
  answered(rpc: WorkloadRpc, seconds: number): void;
}
