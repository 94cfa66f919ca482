import Networks
import Tensors
import Testing
import Training

@Suite struct EmbedderTests {
    @Test func embedderIsTheForwardPassInEvaluationMode() throws {
        let state = try TrainingState.initial(Fixtures.basic())
        _ = try Fixtures.train(state, steps: 2)
        let input = Fixtures.slots(state.configuration, step: 50)[0]
        let embedder = try Embedder(state)
        let found = try embedder.embed(input.images.base, count: 12)
        let images = try Tensor(Array(input.images.floats), shape: [12, 3, 20, 12])
        let expected = try withoutGradient {
            try state.network.forward(
                images, parameters: state.parameters, batchNorm: .evaluation(state.buffers))
        }.floats()
        for (left, right) in zip(found, expected) { #expect(abs(left - right) < 1e-5) }
        #expect(found.count == 12 * 16)
        // Later steps do not reach it.
        _ = try Fixtures.train(state, steps: 1)
        #expect(try embedder.embed(input.images.base, count: 12) == found)
    }

    @Test func paddedTailHasTheBitsOfTheWholeBatch() throws {
        let state = try TrainingState.initial(Fixtures.basic())
        let input = Fixtures.slots(state.configuration, step: 3)[0]
        let embedder = try Embedder(state)
        let whole = try embedder.embed(input.images.base, count: 12)
        let padded = FloatBuffer(count: input.images.count)
        let size = 3 * 20 * 12
        padded.base.update(from: input.images.base, count: 5 * size)
        let tail = try embedder.embed(padded.base, count: 12)
        #expect(Array(tail.prefix(5 * 16)) == Array(whole.prefix(5 * 16)))
    }

    @Test func missingTensorIsNamed() throws {
        let error = #expect(throws: TrainingError.self) {
            _ = try Embedder(Fixtures.basic().network) { _ in nil }
        }
        #expect(error?.message.contains("network/conv1.weight") == true)
    }
}
