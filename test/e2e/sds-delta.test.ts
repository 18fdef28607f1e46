import { testSds } from './sds-cases.ts';

testSds('DELTA_GRPC');
