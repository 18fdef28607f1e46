import { ReflectionService } from '@grpc/reflection';
import { MalformedError, messageOf } from '../runtime/errors.ts';
import { serviceDescriptors } from './protos.ts';
import type { BidiMethod, Service } from './service.ts';

type AddService = Parameters<ReflectionService['addToServer']>[0]['addService'];
type ServiceDefinition = Parameters<AddService>[0];
type Implementation = Parameters<AddService>[1];

/** A message as @grpc/reflection takes and gives it. */
type Message = Readonly<object>;
/** What its handler wants of a stream: it answers each request at once, with one message. */
type Answering = (stream: {
  on(event: string, listener: (request: Message) => void): void;
  write(response: Message): void;
  end(): void;
}) => void;

/** The files of proto/ that declare what may be served. */
const files: ReadonlyMap<string, string> = new Map([
  ['envoy.service.auth.v3.Authorization', 'envoy/service/auth/v3/external_auth.proto'],
  ['envoy.service.secret.v3.SecretDiscoveryService', 'envoy/service/secret/v3/sds.proto'],
  ['grpc.health.v1.Health', 'grpc/health/v1/health.proto'],
]);

/**
 * Server reflection, v1 and v1alpha, for the services that a listener has, by their full names: it tells of these and of
 * the messages that they use, and of nothing that goes over them.
 */
export function createReflection(names: readonly string[]): readonly Service[] {
  const descriptors = serviceDescriptors(names.map((name) => files.get(name) ?? unknown(name)));
  const services: Service[] = [];
  // Not added to the server as it is: its streams would have no bound, and would not end when the server stops.
  new ReflectionService(descriptors, { services: [...names] }).addToServer({
    addService(definition: ServiceDefinition, implementation: Implementation) {
      services.push(serviceOf(definition, implementation));
    },
  });
  return services;
}

function unknown(name: string): never {
  throw new Error(`no file is known to declare the service ${name}`);
}

function serviceOf(definition: ServiceDefinition, implementation: Implementation): Service {
  const methods = Object.entries(definition).map(
    ([name, { path, requestDeserialize, responseSerialize }]) => {
      const method: BidiMethod<Message, Message> = {
        kind: 'bidi',
        decode(bytes) {
          try {
            return requestDeserialize(bytes) as Message;
          } catch (error) {
            throw new MalformedError(`not a request for reflection: ${messageOf(error)}`, { cause: error });
          }
        },
        encode: responseSerialize,
        handle: (requests) => answers(implementation[name] as unknown as Answering, requests),
      };
      return { service: path.split('/')[1] ?? '', entry: [path.split('/')[2] ?? '', method] as const };
    },
  );
  return {
    name: methods[0]?.service ?? '',
    methods: Object.fromEntries(methods.map(({ entry }) => entry)),
  };
}

/** One request after another, so that whoever does not read gets no further. */
async function* answers(answer: Answering, requests: AsyncIterable<Message>): AsyncIterable<Message> {
  let take: (request: Message) => void = () => {};
  const answered: Message[] = [];
  answer({
    on(event, listener) {
      if (event === 'data') take = listener;
    },
    write: (response) => void answered.push(response),
    end: () => {},
  });
  for await (const request of requests) {
    take(request);
    yield* answered.splice(0);
  }
}
