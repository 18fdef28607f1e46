// A measure for Check: grpc-go and OPA's own evaluator with nothing around them. For every Check it builds the input that
// opa-envoy-plugin's documentation describes for a request without a body, evaluates one prepared query and answers. It
// reads no configuration, writes no log, counts nothing and verifies nothing, so it is what a server made of these parts
// costs at least.
package main

import (
	"context"
	"log"
	"net"
	"net/url"
	"os"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

type object = map[string]any

type server struct {
	authv3.UnimplementedAuthorizationServer
	query rego.PreparedEvalQuery
}

func (s *server) Check(ctx context.Context, request *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	document, err := input(request.GetAttributes())
	if err != nil {
		return nil, err
	}
	value, err := ast.InterfaceToValue(document)
	if err != nil {
		return nil, err
	}
	results, err := s.query.Eval(ctx, rego.EvalParsedInput(value))
	if err != nil {
		return nil, err
	}
	if len(results) == 1 {
		if decision, ok := results[0].Expressions[0].Value.(object); ok && decision["allowed"] == true {
			return &authv3.CheckResponse{Status: &status.Status{Code: int32(codes.OK)}}, nil
		}
	}
	return &authv3.CheckResponse{
		Status: &status.Status{Code: int32(codes.PermissionDenied)},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status: &typev3.HttpStatus{Code: typev3.StatusCode_Forbidden},
		}},
	}, nil
}

func input(attributes *authv3.AttributeContext) (object, error) {
	http := attributes.GetRequest().GetHttp()
	path, query, _ := strings.Cut(http.GetPath(), "?")
	path, err := url.PathUnescape(path)
	if err != nil {
		return nil, err
	}
	parameters, err := url.ParseQuery(query)
	if err != nil {
		return nil, err
	}
	time := attributes.GetRequest().GetTime()
	return object{
		"attributes": object{
			"source":      peer(attributes.GetSource()),
			"destination": peer(attributes.GetDestination()),
			"request": object{
				"time": object{"seconds": time.GetSeconds(), "nanos": time.GetNanos()},
				"http": object{
					"id": http.GetId(), "method": http.GetMethod(), "path": http.GetPath(), "host": http.GetHost(),
					"scheme": http.GetScheme(), "protocol": http.GetProtocol(), "headers": http.GetHeaders(),
				},
			},
			"metadataContext":      object{},
			"routeMetadataContext": object{},
		},
		"version":          map[string]string{"ext_authz": "v3", "encoding": "protojson"},
		"parsed_path":      strings.Split(strings.TrimLeft(path, "/"), "/"),
		"parsed_query":     map[string][]string(parameters),
		"parsed_body":      nil,
		"truncated_body":   false,
		"source_principal": attributes.GetSource().GetPrincipal(),
	}, nil
}

func peer(peer *authv3.AttributeContext_Peer) object {
	document := object{"address": address(peer.GetAddress()), "principal": peer.GetPrincipal()}
	if certificate := peer.GetCertificate(); certificate != "" {
		document["certificate"] = certificate
	}
	return document
}

func address(address *corev3.Address) object {
	socket := address.GetSocketAddress()
	return object{"socketAddress": object{"address": socket.GetAddress(), "portValue": socket.GetPortValue()}}
}

func main() {
	if len(os.Args) < 3 {
		log.Fatal("usage: go-authz SOCKET POLICY...")
	}
	query, err := rego.New(rego.Query("data.envoy.authz.allow"), rego.Load(os.Args[2:], nil)).
		PrepareForEval(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("unix", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	authorization := grpc.NewServer()
	authv3.RegisterAuthorizationServer(authorization, &server{query: query})
	log.Fatal(authorization.Serve(listener))
}
