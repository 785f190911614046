// Node only: starts demonstrations-worker.ts in a thread, which has no TypeScript loader of its own.
import { register } from 'tsx/esm/api';

register();
await import('./demonstrations-worker.ts');
