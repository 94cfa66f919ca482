import Foundation

extension Part {
    static let step = beside(
        "step-fp32", "ResNet-50 at 128x64, 64 images a step", resNet, images: 64, height: 128,
        width: 64, steps: 2, rounds: 9)

    static let stepLarge = beside(
        "step-fp32-256", "ResNet-50 at 256x128, 32 images a step",
        settings([
            "network.backbone=resnet50", "input.height=256", "input.width=128",
            "batch.identities=4", "batch.images_per_identity=4", "batch.mini_batches_per_step=2",
        ]), images: 32, height: 256, width: 128, steps: 1, rounds: 9)

    static let stepBF16 = beside(
        "step-bf16", "ResNet-50 at 128x64, 16 images a step",
        settings([
            "network.backbone=resnet50", "input.height=128", "input.width=64",
            "batch.identities=4", "batch.images_per_identity=2", "batch.mini_batches_per_step=2",
            "numerics.precision=bf16",
        ]), images: 16, height: 128, width: 64, isBF16: true, steps: 1, rounds: 5)

    private static func beside(
        _ name: String, _ network: String, _ settings: [String], images: Int, height: Int,
        width: Int, isBF16: Bool = false, steps: Int, rounds: Int
    ) -> Part {
        let what =
            "\(network), \(isBF16 ? "bf16" : "fp32"): Lineup's slots side by side beside PyTorch "
            + "at the same total batch, with batch_hard and Adam"
        return Part(
            name: name, what: what,
            obstacle: {
                $0.python == nil
                    ? "no Python with torch; name one with LINEUP_BENCH_PYTHON" : nil
            }
        ) { bench in
            let peer = Peer(
                bench: bench, images: images, height: height, width: width, isBF16: isBF16)
            return try measureBeside(
                bench, name, what, settings, peer, steps: steps,
                rounds: bench.rounds ?? rounds)
        }
    }

    private static func measureBeside(
        _ bench: Bench, _ name: String, _ what: String, _ settings: [String], _ peer: Peer,
        steps: Int, rounds: Int
    ) throws -> Measurement {
        let start = ContinuousClock.now
        let crops = try bench.crops(withSets: false)
        let ours = try bench.bareLoop(
            settings, crops: crops, parallelSlots: bench.machine.cores.count, inputs: 1)
        var servers = [("Lineup, parallel slots", ours)]
        defer { for (_, server) in servers { server.end() } }
        servers.append(("PyTorch, one process", try peer.start("one")))
        if bench.machine.cores.count > 1 {
            servers.append(("PyTorch, DDP over gloo", try peer.start("ddp")))
        }
        // The first steps allocate memory and choose kernels.
        for (_, server) in servers { _ = try server.steps(peer.isBF16 ? 1 : 2) }
        var rates = [[Double]](repeating: [], count: servers.count)
        for round in 0..<rounds {
            // Another side begins each round.
            for turn in servers.indices {
                let side = (round + turn) % servers.count
                let seconds = try servers[side].1.steps(steps).reduce(0, +)
                rates[side].append(Double(peer.images * steps) / seconds)
            }
            let numbers = rates.map { String(format: "%.2f", $0[round]) }.joined(separator: ", ")
            say("\(name) round \(round + 1) of \(rounds): images/s \(numbers)")
        }
        let series = rates.map { Series($0) }
        let best = series.indices.dropFirst().max { series[$0].median < series[$1].median }!
        let ratio = Series(zip(rates[0], rates[best]).map { $0 / $1 })
        return Measurement(
            name: name, what: what, unit: "images/s",
            sides: zip(servers, series).map { Side(name: $0.0, series: $1) },
            ratios: [
                Ratio(
                    of: "Lineup / best of PyTorch", series: ratio,
                    wanted: "at least 1.0, lower end at least 0.95",
                    isMet: ratio.median >= 1 && ratio.low >= 0.95)
            ],
            notes: [
                "best of PyTorch: \(servers[best].0); torch "
                    + (servers[best].1.introduction["torch"] ?? "?")
            ]
                + (peer.isBF16 && !bench.machine.hasBFloat16
                    ? [
                        "this processor has no bfloat16 instructions: both sides are slow, and "
                            + "only the ratio says anything"
                    ] : []),
            seconds: (ContinuousClock.now - start).inSeconds)
    }
}

/// PyTorch making the same step.
struct Peer {
    let bench: Bench
    let images: Int
    let height: Int
    let width: Int
    let isBF16: Bool

    /// Starts it; `way` is one (process) or ddp.
    func start(_ way: String) throws -> StepServer {
        try StepServer(
            "PyTorch (\(way))", executable: bench.python!,
            arguments: [
                bench.peers + "/pytorch_step.py", "--way", way, "--images", "\(images)",
                "--height", "\(height)", "--width", "\(width)", "--precision",
                isBF16 ? "bf16" : "fp32", "--cores",
                bench.machine.cores.map(String.init).joined(separator: ","),
            ], environment: ["PYTHONDONTWRITEBYTECODE": "1"],
            log: bench.folder + "/pytorch-\(way).log")
    }
}
