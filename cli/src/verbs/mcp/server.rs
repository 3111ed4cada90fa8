//! Speaks MCP: lists the tools, and calls them. What goes wrong in a call is told to the model, which can mend it.

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation,
    ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};

use super::inside::Inside;
use super::outside::Outside;
use super::tools;

/// Under which name Claude Code tells the id of a call, which stays the same when the call is repeated.
const CALL_ID: &str = "claudecode/toolUseId";

/// Where the server is.
#[derive(Debug)]
pub(super) enum Side {
    /// In a task.
    Inside(Inside),
    /// Elsewhere.
    Outside(Outside),
}

/// The server.
#[derive(Debug)]
pub(super) struct Server {
    side: Side,
    tools: Vec<Tool>,
}

impl Server {
    pub(super) fn new(side: Side) -> Self {
        let tools = tools::all(matches!(side, Side::Inside(_)));
        Self { side, tools }
    }

    async fn call(&self, request: CallToolRequestParams, call: Option<String>) -> CallToolResult {
        let arguments = request.arguments.unwrap_or_default();
        let done = match &self.side {
            Side::Inside(inside) => inside.call(&request.name, arguments, call),
            Side::Outside(outside) => outside.call(&request.name, arguments, call).await,
        };
        let done = done.unwrap_or_else(|| {
            let names: Vec<_> = self.tools.iter().map(|tool| tool.name.as_ref()).collect();
            Err(format!(
                "there is no tool `{}`; there are {}",
                request.name,
                names.join(", ")
            ))
        });
        match done {
            Ok(text) => CallToolResult::success(vec![ContentBlock::text(text)]),
            Err(text) => CallToolResult::error(vec![ContentBlock::text(text)]),
        }
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().build();
        let told = match self.side {
            Side::Inside(_) => tools::INSIDE,
            Side::Outside(_) => tools::OUTSIDE,
        };
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("air", env!("CARGO_PKG_VERSION")))
            .with_instructions(told)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.tools.clone()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let call = context.meta.get(CALL_ID).and_then(|id| id.as_str());
        let call = call.map(str::to_owned);
        Ok(self.call(request, call).await.into())
    }
}
