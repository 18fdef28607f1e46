/** The door to the YAML package, for the rooms that read texts of their own kind with it. */
export { type Document, parseDocument, stringify } from 'yaml';
