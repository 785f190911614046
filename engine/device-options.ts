/** How an adapter is opened, and what that gives. */

export interface DeviceOptions {
  /** Part of an adapter's name ('llvmpipe', 'NVIDIA'), or 'null' for Dawn's validating backend; default: the system's first. Node only. */
  adapter?: string;
  /** Open with WebGPU's default limits and no features, whatever the adapter offers. */
  floor?: boolean;
  /**
   * Take features that are no standard yet, for kernels that need them: subgroup matrices, for products of f16. Under node Dawn is
   * opened with its unsafe APIs; a browser has to be started with them.
   */
  experimental?: boolean;
  /** Submit after each op, so that a validation error names the op that caused it; a binding that an op does not use is one as well. */
  debug?: boolean;
}

export const subgroupMatrixFeature = 'chromium-experimental-subgroup-matrix';

/** Sizes and element types of subgroup matrices that a device multiplies: M x K by K x N. */
export interface SubgroupMatrices extends Readonly<Record<'M' | 'N' | 'K', number>> {
  readonly componentType: string;
  readonly resultComponentType: string;
}

/** What an adapter gives when it is opened. */
export interface OpenedAdapter {
  readonly gpu: GPUDevice;
  readonly adapter: GPUAdapter;
  /** Bytes of op parameters that need no uniform buffer. */
  readonly immediateBytes: number;
}

/** Vendor, architecture and driver of an adapter, as it names itself. */
export function describeAdapter({ info: { vendor, architecture, device, description } }: GPUAdapter): string {
  return [vendor, architecture, device, description].filter((part) => part).join(' ');
}
