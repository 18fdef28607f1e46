/**
 * A key path as the reference has it: `[]` stands for any item, and an item of what may be a list or a single section is
 * that section.
 */
export function placeOf(path: string): string {
  return path.replace(/^policy\.bundle\[\d+\]/, 'policy.bundle').replaceAll(/\[\d+\]/g, '[]');
}
