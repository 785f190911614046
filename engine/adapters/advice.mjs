// Advice on what to install so that a WebGPU adapter opens. No imports: the set-up and engine/adapters.ts share this
// file.

/**
 * The fields of /etc/os-release that the set-up reads.
 * @typedef {{ id: string, like: string[], codename: string, name: string }} OsRelease
 */

/**
 * @param {string} text an os-release file (os-release(5))
 * @returns {OsRelease} the codename of a derivative is that of its Debian or Ubuntu release, if it names one
 */
export function parseOsRelease(text) {
  /** @type {Record<string, string>} */
  const fields = {};
  for (const line of text.split('\n')) {
    const match = /^([A-Z_]+)=(["']?)(.*)\2\s*$/.exec(line.trim());
    if (match) fields[match[1]] = match[3];
  }
  return {
    id: fields.ID ?? 'linux',
    like: (fields.ID_LIKE ?? '').split(/\s+/).filter((word) => word),
    codename: fields.UBUNTU_CODENAME ?? fields.DEBIAN_CODENAME ?? fields.VERSION_CODENAME ?? '',
    name: fields.PRETTY_NAME ?? fields.NAME ?? 'this Linux distribution',
  };
}

/**
 * @param {OsRelease} release
 * @returns {'debian' | 'ubuntu' | 'other'} the distribution that the machine's packages come from
 */
export function family(release) {
  const names = [release.id, ...release.like];
  if (names.includes('ubuntu')) return 'ubuntu';
  return names.includes('debian') ? 'debian' : 'other';
}

/** @type {[names: string[], command: string][]} */
const softwareAdapterCommands = [
  [['fedora', 'rhel', 'centos'], 'sudo dnf install vulkan-loader mesa-vulkan-drivers'],
  [['arch', 'manjaro'], 'sudo pacman -S vulkan-icd-loader vulkan-swrast'],
  [['opensuse', 'suse', 'sles'], 'sudo zypper install libvulkan1 libvulkan_lvp'],
];

/**
 * Returns a paragraph of advice on what to install if no WebGPU adapter opens.
 * @param {string} platform `process.platform`
 * @param {OsRelease | null} [release] of a Linux machine, if it is known
 * @returns {string}
 */
export function adviceFor(platform, release = null) {
  if (platform === 'darwin')
    return 'macOS: WebGPU uses Metal, which is part of macOS. Update to macOS 12 or later; in a virtual machine, give it a graphics device.';
  if (platform === 'win32')
    return "Windows: WebGPU uses Direct3D 12. Update to Windows 10 or later and install the current graphics driver from your GPU's maker (Windows' own software adapter needs no driver).";
  if (platform !== 'linux')
    return `${platform}: the webgpu package has no build for this system. Use Linux with glibc, macOS or Windows.`;
  const gpu =
    'For a GPU, install the Vulkan driver from its maker (NVIDIA) or from Mesa (AMD, Intel), and the Vulkan loader';
  if (release?.id === 'alpine')
    return `${release.name}: the webgpu package needs glibc, which Alpine does not have. Use a Debian or Ubuntu image.`;
  if (release && family(release) !== 'other')
    return `${release.name}: ${gpu}: sudo apt install libvulkan1 mesa-vulkan-drivers. Without a GPU, "npx insula setup" fetches Mesa's software adapter (23 or later) with apt-get, without root; it needs the network and a package mirror in /etc/apt.`;
  const known = softwareAdapterCommands.find(([names]) =>
    names.some((name) => release?.id.startsWith(name) || release?.like.includes(name)),
  );
  const software = known ? `: ${known[1]}` : ' with your package manager: Mesa 23 or later and the Vulkan loader';
  return `${release?.name ?? 'Linux'}: ${gpu}. Without a GPU, install Mesa's software adapter (lavapipe)${software}.`;
}
