package service

import (
	"maps"
	"slices"
	"strings"
)

// KeyClass says what becomes of a unit when a key is not honoured, or why a Note was made.
type KeyClass string

// The classes of keys. Source: facts on units, section 3.2.
const (
	Restricting KeyClass = "restricting" // without it the unit is less isolated than asked: refuse or report
	Granting    KeyClass = "granting"    // without it the unit lacks something it needs
	Limiting    KeyClass = "limiting"    // without it the unit may use more than asked
	Tuning      KeyClass = "tuning"      // life cycle, order and taste

	BadValue KeyClass = "ignored-bad-value" // of a Note: the value was skipped
	Unknown  KeyClass = "unknown"           // no such key
)

// Class gives the class of a [Service] key of systemd 252, old spellings included; Unknown for any other.
func Class(key string) KeyClass {
	if strings.HasPrefix(key, "Limit") {
		if _, ok := serviceKeys[key]; ok {
			return Limiting
		}
	}
	for class, keys := range classes {
		if keys[key] {
			return class
		}
	}
	return Unknown
}

// Keys gives all [Service] keys that Parse reads into a Service, sorted. Other keys with a Class are known to systemd
// but only counted in Service.Keys.
func Keys() []string { return slices.Sorted(maps.Keys(serviceKeys)) }

// Known gives all keys that systemd 252 knows in a section of a .service file, sorted; none for another section.
func Known(section string) []string {
	known := map[string]bool{}
	for key := range sections(section) {
		known[key] = true
	}
	switch section {
	case "Service":
		for _, keys := range classes {
			maps.Copy(known, keys)
		}
	case "Unit":
		maps.Copy(known, leftUnitKeys)
	}
	return slices.Sorted(maps.Keys(known))
}

func set(words string) map[string]bool {
	all := map[string]bool{}
	for _, w := range strings.Fields(words) {
		all[w] = true
	}
	return all
}

// classes are all [Service] keys of systemd 252 but Limit*.
// Source: the key table compiled into systemd 252 (Debian 12).
var classes = map[KeyClass]map[string]bool{
	Restricting: set(`User Group DynamicUser UMask NoNewPrivileges CapabilityBoundingSet Capabilities SecureBits
		PermissionsStartOnly RootDirectoryStartOnly RootDirectory RootImage RootImageOptions RootHash
		RootHashSignature RootVerity PrivateTmp PrivateDevices PrivateNetwork PrivateUsers PrivateIPC PrivateMounts
		IPCNamespacePath NetworkNamespacePath ProtectSystem ProtectHome ProtectControlGroups
		ProtectKernelTunables ProtectKernelModules ProtectKernelLogs ProtectClock ProtectHostname ProtectProc
		ProcSubset ReadOnlyPaths ReadOnlyDirectories InaccessiblePaths InaccessibleDirectories NoExecPaths
		TemporaryFileSystem MountFlags RestrictAddressFamilies RestrictFileSystems RestrictNamespaces RestrictRealtime
		RestrictSUIDSGID RestrictNetworkInterfaces LockPersonality MemoryDenyWriteExecute SystemCallFilter
		SystemCallArchitectures RemoveIPC KeyringMode DevicePolicy IPAddressDeny IPIngressFilterPath
		IPEgressFilterPath BPFProgram SocketBindDeny SELinuxContext AppArmorProfile SmackProcessLabel PAMName`),
	Granting: set(`ExecCondition ExecStartPre ExecStart ExecStartPost ExecReload ExecStop ExecStopPost ExecSearchPath
		Environment EnvironmentFile PassEnvironment UnsetEnvironment WorkingDirectory SupplementaryGroups
		AmbientCapabilities RuntimeDirectory RuntimeDirectoryMode StateDirectory StateDirectoryMode CacheDirectory
		CacheDirectoryMode LogsDirectory LogsDirectoryMode ConfigurationDirectory ConfigurationDirectoryMode
		ReadWritePaths ReadWriteDirectories ExecPaths BindPaths BindReadOnlyPaths DeviceAllow IPAddressAllow
		SocketBindAllow LoadCredential LoadCredentialEncrypted SetCredential SetCredentialEncrypted Sockets
		StandardInput StandardInputText StandardInputData TTYPath BusName Type FileDescriptorStoreMax MountImages
		ExtensionImages ExtensionDirectories MountAPIVFS Delegate USBFunctionDescriptors USBFunctionStrings
		Personality`),
	Limiting: set(`MemoryMax MemoryHigh MemorySwapMax MemoryLimit TasksMax CPUQuota AllowedCPUs AllowedMemoryNodes
		StartupAllowedCPUs StartupAllowedMemoryNodes IOReadBandwidthMax IOWriteBandwidthMax IOReadIOPSMax
		IOWriteIOPSMax BlockIOReadBandwidth BlockIOWriteBandwidth CoredumpFilter`),
	Tuning: set(`ExitType RemainAfterExit PIDFile GuessMainPID NotifyAccess Restart RestartSec StartLimitInterval
		StartLimitBurst StartLimitAction RestartForceExitStatus RestartPreventExitStatus SuccessExitStatus
		TimeoutStartSec TimeoutStopSec TimeoutAbortSec TimeoutSec TimeoutCleanSec TimeoutStartFailureMode
		TimeoutStopFailureMode RuntimeMaxSec RuntimeRandomizedExtraSec WatchdogSec WatchdogSignal OOMPolicy KillMode
		KillSignal RestartKillSignal FinalKillSignal SendSIGHUP SendSIGKILL FailureAction RebootArgument
		RuntimeDirectoryPreserve SystemCallErrorNumber SystemCallLog MemoryMin MemoryLow DefaultMemoryMin
		DefaultMemoryLow CPUWeight StartupCPUWeight CPUShares StartupCPUShares CPUQuotaPeriodSec IOWeight
		StartupIOWeight IODeviceWeight IODeviceLatencyTargetSec BlockIOWeight StartupBlockIOWeight
		BlockIODeviceWeight Nice OOMScoreAdjust CPUSchedulingPolicy CPUSchedulingPriority
		CPUSchedulingResetOnFork CPUAffinity NUMAPolicy NUMAMask IOSchedulingClass IOSchedulingPriority TimerSlackNSec
		StandardOutput StandardError SyslogIdentifier SyslogFacility SyslogLevel SyslogLevelPrefix LogLevelMax
		LogRateLimitIntervalSec LogRateLimitBurst LogExtraFields LogNamespace TTYReset TTYVHangup
		TTYVTDisallocate TTYRows TTYColumns UtmpIdentifier UtmpMode IgnoreSIGPIPE NonBlocking Slice NetClass
		DisableControllers CPUAccounting MemoryAccounting TasksAccounting IOAccounting BlockIOAccounting
		IPAccounting ManagedOOMSwap ManagedOOMMemoryPressure ManagedOOMMemoryPressureLimit ManagedOOMPreference
		SysVStartPriority BusPolicy`),
}

// sections gives the readers of a section's keys; nil for a section that a .service does not have.
func sections(name string) map[string]setter {
	switch name {
	case "Unit":
		return unitKeys
	case "Service":
		return serviceKeys
	case "Install":
		return installKeys
	}
	return nil
}
