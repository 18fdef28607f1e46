import { testSds } from './sds-cases.ts';

testSds('GRPC');
