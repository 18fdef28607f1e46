import type { z } from 'zod';
import type { FieldMeta } from './fields.ts';
import { schema } from './schema.ts';

/** One option of the schema, as env variables, suggestions and the reference need it. */
export type Option = Readonly<{
  /** Key path such as `ext_authz.limits.max_concurrent`; `[]` stands for an item of a list. */
  path: string;
  /** For people: `text`, `duration`, `list of SPIFFE ID`, `envoy \| agentvault`. */
  type: string;
  kind: 'section' | 'boolean' | 'number' | 'text' | 'list' | 'map';
  /** As it would be written in the file; undefined when there is none. */
  default: unknown;
  /** What holds in place of a default, in words. */
  otherwise: string | undefined;
  required: boolean;
  bounds: string | undefined;
  sentence: string | undefined;
}>;

type Meta = FieldMeta & Readonly<{ description?: string | undefined }>;

type Def = Readonly<{
  type: string;
  innerType?: z.core.$ZodType;
  in?: z.core.$ZodType;
  element?: z.core.$ZodType;
  options?: readonly z.core.$ZodType[];
  shape?: Readonly<Record<string, z.core.$ZodType>>;
  entries?: Readonly<Record<string, string>>;
  defaultValue?: unknown;
  checks?: readonly z.core.$ZodCheck[];
}>;

type Bound = Readonly<{ check: string; value?: number; minimum?: number; maximum?: number }>;

/** Every option of the schema, sections before what they hold, in the schema's order. */
export function listOptions(): readonly Option[] {
  return childrenOf('', schema);
}

function childrenOf(prefix: string, type: z.core.$ZodType): readonly Option[] {
  const { shape } = defOf(unwrap(type).inner);
  return Object.entries(shape ?? {}).flatMap(([key, child]) => {
    const option = describe(prefix === '' ? key : `${prefix}.${key}`, child);
    const { inner } = unwrap(child);
    if (option.kind === 'section') return [option, ...childrenOf(option.path, child)];
    const { element } = defOf(inner);
    return element === undefined ? [option] : [option, ...childrenOf(`${option.path}[]`, element)];
  });
}

function describe(path: string, type: z.core.$ZodType): Option {
  const { inner, meta, defaultValue, optional } = unwrap(type);
  const kind = kindOf(inner);
  return Object.freeze({
    path,
    type: typeName(inner, meta),
    kind,
    default: kind === 'section' ? undefined : defaultValue,
    otherwise: meta.otherwise,
    required: !optional && defaultValue === undefined,
    bounds: meta.bounds ?? boundsOf(inner),
    sentence: meta.description,
  });
}

/** Peels defaults and optionality off, and gathers what the layers say. */
function unwrap(type: z.core.$ZodType): {
  inner: z.core.$ZodType;
  meta: Meta;
  defaultValue: unknown;
  optional: boolean;
} {
  let inner = type;
  let meta: Meta = metaOf(inner);
  let defaultValue: unknown;
  let optional = false;
  for (let def = defOf(inner); def.innerType !== undefined; def = defOf(inner)) {
    if (def.type === 'optional') optional = true;
    else defaultValue ??= def.defaultValue;
    inner = def.innerType;
    meta = { ...metaOf(inner), ...meta };
  }
  // What may also be a list of such sections; see placeOf.
  inner = defOf(inner).options?.[0] ?? inner;
  return { inner, meta, defaultValue, optional };
}

function kindOf(type: z.core.$ZodType): Option['kind'] {
  switch (defOf(type).type) {
    case 'object':
      return 'section';
    case 'boolean':
      return 'boolean';
    case 'number':
      return 'number';
    case 'array':
      return 'list';
    case 'record':
      return 'map';
    default:
      return 'text';
  }
}

function typeName(type: z.core.$ZodType, meta: FieldMeta): string {
  if (meta.type !== undefined) return meta.type;
  const def = defOf(type);
  if (def.entries !== undefined) return Object.keys(def.entries).join(' | ');
  if (def.element !== undefined) {
    const item = unwrap(def.element);
    return `list of ${typeName(item.inner, item.meta)}`;
  }
  const names: Readonly<Record<string, string>> = { string: 'text', record: 'map', object: 'section' };
  return names[def.type] ?? def.type;
}

function boundsOf(type: z.core.$ZodType): string | undefined {
  const checks = (defOf(type).checks ?? []).map((check) => internals(check).def as Bound);
  const min = checks.find(({ check }) => check === 'greater_than' || check === 'min_length');
  const max = checks.find(({ check }) => check === 'less_than' || check === 'max_length');
  const least = min?.value ?? min?.minimum;
  const most = max?.value ?? max?.maximum;
  if (most === undefined) return undefined;
  const unit = { array: ' items', string: ' characters' }[defOf(type).type] ?? '';
  return least === undefined ? `at most ${most}${unit}` : `${least} to ${most}${unit}`;
}

function metaOf(type: z.core.$ZodType): Meta {
  return (type as z.ZodType).meta() ?? {};
}

function defOf(type: z.core.$ZodType): Def {
  return internals(type).def as Def;
}

/** zod's own door to what a schema consists of, made for tools such as this. */
function internals({ _zod }: Readonly<{ _zod: Readonly<{ def: unknown }> }>): Readonly<{ def: unknown }> {
  return _zod;
}
