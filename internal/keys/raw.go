package keys

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// raw is a message as it was sent, for passing on.
type raw struct{ b []byte }

// passing is gRPC's usual codec, which also passes raw messages on as they are.
type passing struct{ encoding.CodecV2 }

func newPassing() passing { return passing{encoding.GetCodecV2(proto.Name)} }

// Marshal implements encoding.CodecV2.
func (p passing) Marshal(v any) (mem.BufferSlice, error) {
	if m, ok := v.(*raw); ok {
		return mem.BufferSlice{mem.SliceBuffer(m.b)}, nil
	}
	return p.CodecV2.Marshal(v)
}

// Unmarshal implements encoding.CodecV2.
func (p passing) Unmarshal(data mem.BufferSlice, v any) error {
	if m, ok := v.(*raw); ok {
		m.b = data.Materialize()
		return nil
	}
	return p.CodecV2.Unmarshal(data, v)
}
