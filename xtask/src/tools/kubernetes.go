// One program with the components of Kubernetes, kubectl and etcd: the name it is called
// by (a symlink) or else its first argument picks which one runs.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	kcm "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

func main() {
	name := filepath.Base(os.Args[0])
	var c *cobra.Command
	for i := 0; i < 2; i++ {
		switch name {
		case "kube-apiserver":
			c = apiserver.NewAPIServerCommand()
		case "kube-controller-manager":
			c = kcm.NewControllerManagerCommand()
		case "kube-scheduler":
			c = scheduler.NewSchedulerCommand()
		case "kubelet":
			c = kubelet.NewKubeletCommand(context.Background())
		case "kubectl":
			if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
				os.Exit(1)
			}
			return
		case "etcd":
			etcdmain.Main(os.Args)
			return
		}
		if c != nil {
			os.Exit(cli.Run(c))
		}
		if len(os.Args) < 2 {
			break
		}
		name = os.Args[1]
		os.Args = os.Args[1:]
	}
	fmt.Fprintln(os.Stderr, "usage: kubernetes {kube-apiserver|kube-controller-manager|kube-scheduler|kubelet|kubectl|etcd} ARGS")
	os.Exit(2)
}
