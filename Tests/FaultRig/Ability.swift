import Foundation

/// What the rig can do, and what this machine lacks for it.
package enum Ability: String, CaseIterable, Sendable {
    case freezer = "control groups' freezer"
    case quota = "control groups' processor quota"
    case network = "network namespaces"
    case reset = "ss -K"
    case narrow = "tc's tbf"
    case smallDisk = "a file system in memory"
    case deathSignal = "setpriv --pdeathsig"

    /// Why this machine lacks it; nil where it has it.
    package var obstacle: String? { Self.obstacles[self] ?? nil }

    private static let obstacles: [Ability: String?] = [
        .freezer: ControlGroup.obstacle(.freezer), .quota: ControlGroup.obstacle(.cpu),
        .network: VirtualNetwork.obstacle,
        .reset: VirtualNetwork.canReset ? nil : "ss is not there, or the kernel does not let it",
        .narrow: VirtualNetwork.canLimit ? nil : "tc is not there, or the kernel has no tbf",
        .smallDisk: SmallDisk.obstacle,
        .deathSignal: LineupProcess.deathSignal.isEmpty ? "no setpriv" : nil,
    ]

    /// One line for each thing that this machine lacks.
    package static var lacking: [String] {
        allCases.compactMap { ability in ability.obstacle.map { "\(ability.rawValue): \($0)" } }
    }
}
