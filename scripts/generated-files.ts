import { bootstrapSamples } from './bootstrap-samples.ts';
import { configReference } from './config-reference.ts';
import { metricsReference } from './metrics-reference.ts';

/** Every committed file that is made from code. `npm run docs` writes them, `npm run docs:check` compares. */
export function generatedFiles(root: string): readonly Readonly<{ path: string; text: string }>[] {
  return [
    { path: 'docs/config.md', text: configReference() },
    { path: 'docs/metrics.md', text: metricsReference() },
    ...bootstrapSamples(root),
  ];
}
