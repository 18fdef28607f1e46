import { MalformedError } from '../../../runtime/errors.ts';
import {
  type DerElement,
  decodeBoolean,
  decodeTime,
  derTag,
  expectTag,
  splitDer,
} from '../../../spiffe/der.ts';
import { refuse, whole } from '../args.ts';
import {
  createDerCursor,
  decodeAlignedBits,
  decodeBits,
  decodeInt64,
  decodeOidNumbers,
  enter,
} from '../der-cursor.ts';
import type { Value } from '../value.ts';
import { noNames, readAlternativeNames } from './x509-alternative-names.ts';
import { type Extension, readExtensionList } from './x509-extensions.ts';
import { base64, extensionsJson, listOf, namesJson, record, timeText } from './x509-json.ts';
import { readPublicKey } from './x509-keys.ts';
import { isString, readName, readString } from './x509-name.ts';
import { readSignatureAlgorithm } from './x509-signature.ts';

const attributesTag = 0xa0;
const setTag = 0x31;
const extensionRequest = '1.2.840.113549.1.9.14';

/** A certificate request (DER, RFC 2986) as Go's JSON of x509.CertificateRequest. Throws MalformedError. */
export function certificateRequestJson(der: Buffer): Value {
  const outer = createDerCursor(der);
  const { raw, content } = outer.take(derTag.sequence);
  if (!outer.isEmpty()) return refuse('certificate request is followed by other bytes');
  const fields = createDerCursor(content);
  const { raw: rawTbs, content: tbsContent } = fields.take(derTag.sequence);
  const algorithm = readSignatureAlgorithm(fields.take(derTag.sequence).content);
  const signature = decodeAlignedBits(fields.take(derTag.bitString).content);
  const tbs = createDerCursor(tbsContent);
  const version = decodeInt64(tbs.take(derTag.integer).content);
  const rawSubject = tbs.take(derTag.sequence).raw;
  const rawSpki = tbs.take(derTag.sequence).raw;
  const attributes = splitDer(tbs.take(attributesTag).content);
  const extensions = attributes.flatMap(readRequestedExtensions);
  if (new Set(extensions.map(({ id }) => id.join('.'))).size < extensions.length) {
    return refuse('certificate request asks for an extension twice');
  }
  const publicKey = readPublicKey(rawSpki);
  const alternative = extensions.filter(({ id }) => id.join('.') === '2.5.29.17').at(-1);
  return record({
    Raw: base64(raw),
    RawTBSCertificateRequest: base64(rawTbs),
    RawSubjectPublicKeyInfo: base64(rawSpki),
    RawSubject: base64(rawSubject),
    Version: whole(version),
    Signature: base64(signature),
    SignatureAlgorithm: algorithm.number,
    PublicKeyAlgorithm: publicKey.algorithm,
    PublicKey: publicKey.json,
    Subject: readName(rawSubject),
    Attributes: listOf(attributes.flatMap(attributeJson)),
    Extensions: extensionsJson(extensions),
    ExtraExtensions: null,
    ...namesJson(alternative === undefined ? noNames : readAlternativeNames(alternative.value)),
  });
}

function readRequestedExtensions({ content }: DerElement): readonly Extension[] {
  const attribute = createDerCursor(content);
  if (decodeOidNumbers(attribute.take(derTag.oid)).join('.') !== extensionRequest) return [];
  return readExtensionList(enter(enter(attribute, setTag)));
}

/** Nothing for an attribute whose values are no lists of types and values, such as a password. */
function attributeJson({ content }: DerElement): readonly Value[] {
  try {
    const attribute = createDerCursor(content);
    const type = decodeOidNumbers(attribute.take(derTag.oid));
    const values = splitDer(attribute.take(setTag).content).map((list) =>
      splitDer(expectTag(list, derTag.sequence).content).map((pair) => {
        const parts = createDerCursor(expectTag(pair, derTag.sequence).content);
        return record({ Type: decodeOidNumbers(parts.take(derTag.oid)), Value: anyJson(parts.any()) });
      }),
    );
    return [record({ Type: type, Value: values })];
  } catch (error) {
    if (error instanceof MalformedError) return [];
    throw error;
  }
}

/** A value of any type as Go's encoding/asn1 reads it; null for types that it does not know. */
function anyJson(element: DerElement): Value {
  const { tag, content } = element;
  if (tag === derTag.boolean) return decodeBoolean(content);
  if (tag === derTag.integer) return whole(decodeInt64(content));
  if (tag === derTag.octetString) return base64(content);
  if (tag === derTag.oid) return decodeOidNumbers(element);
  if (tag === derTag.utcTime || tag === derTag.generalizedTime) return timeText(decodeTime(element));
  if (tag === derTag.bitString) {
    const { bytes, unused } = decodeBits(content);
    return record({ Bytes: base64(bytes), BitLength: bytes.length * 8 - unused });
  }
  return isString(tag) ? readString(tag, content) : null;
}
